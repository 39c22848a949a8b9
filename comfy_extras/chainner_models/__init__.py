"""An old import place of upscaling models that packs still use."""
