"""Commands that look at and steer the jobs of a cluster."""
