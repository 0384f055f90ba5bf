"""The checkpoint protocol: files, then the manifest, then the pointers; a checkpoint exists when its manifest does.

Nothing is imported here: the driver and the actors of trials need `protocol`, and `state` costs them 300 MB of torch.
"""
