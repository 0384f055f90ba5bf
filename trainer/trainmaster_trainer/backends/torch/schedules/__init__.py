"""The schedules that we ship, one file each: the module's name is the schedule's.

`build` gets the part, the task's metrics and how many steps follow the warm-up. It returns a function of the number of
steps since the warm-up: the learning rate as a share of its peak. One that remembers something is an object with
`validated(metrics)`, `state_dict()` and `load_state_dict()`.
"""
