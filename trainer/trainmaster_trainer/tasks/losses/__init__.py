"""The losses that we ship, one file each: the module's name is the loss's, its `build` makes it from its part."""
