"""The ComfyUI interface level this server speaks, as clients and packs read it."""

__version__ = "0.30.0"
