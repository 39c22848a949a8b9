"""The old import path of upscaling models, which packs still use."""
