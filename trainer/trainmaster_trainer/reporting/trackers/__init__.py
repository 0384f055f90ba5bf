"""Experiment trackers: one module per tracker, and what they share."""
