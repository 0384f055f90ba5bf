"""Where a run is shown, besides its own storage: one module per tracker, and what they share."""
