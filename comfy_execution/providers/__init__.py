"""Asking and filling cache providers, one guarded thread each. Portable: ComfyUI gets this folder as it is."""
