"""Names for perpendicular negative prompts that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(
    __name__, "perpendicular negative prompts", "perp_neg() PerpNeg:object Guider_PerpNeg:comfy.samplers.CFGGuider PerpNegGuider:object"
)
