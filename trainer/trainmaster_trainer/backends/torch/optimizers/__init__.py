"""The optimizers that we ship, one file each; `build` gets the part and the parameter groups."""
