"""The `trainmaster` command: the one place that knows both sides, operator and trainer."""
