"""The tasks that we ship, one file each: the module's name is the task's, its `build` makes it."""
