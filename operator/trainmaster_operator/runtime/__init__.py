"""What runs around reconcile: queue, wiring, hooks, progress endpoint, health, metrics."""
