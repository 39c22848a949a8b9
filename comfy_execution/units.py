"""Units of memory in bytes. As ``comfy.units``, which the execution core does not import."""

MIB = 1024**2
GIB = 1024**3
