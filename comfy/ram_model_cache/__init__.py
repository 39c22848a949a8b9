"""Models kept in host RAM, by what they were loaded from. Portable: ComfyUI gets this folder as it is."""
