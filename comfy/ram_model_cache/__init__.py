"""Models kept in host RAM by what they were loaded from. Portable: a ComfyUI gets this folder and ``comfy/units.py`` as they are."""
