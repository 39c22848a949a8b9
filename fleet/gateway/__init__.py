"""The gateway: ComfyUI's API and Comfy API v2 over many servers. Imports no Ray; what places jobs is given to it (``Servers``)."""
