"""Controller of TrainingJobs: observe, plan, act, one status write."""
