"""What a search means: its axes, its constraints, and the job that a trial is."""
