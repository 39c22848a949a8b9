"""The fleet on Ray Serve: placing, restarting, scaling and streaming are Ray's; only this package imports it."""
