"""Names for masks with many levels that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(__name__, "masks with many levels", "DifferentialDiffusion:object")
