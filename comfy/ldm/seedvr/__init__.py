"""Submodules are imported when they are first read as attributes, as in ComfyUI, where they are all there."""

from comfy.lazy_import import submodules

__getattr__ = submodules(__name__)
