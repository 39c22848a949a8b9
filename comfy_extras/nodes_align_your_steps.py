"""Names for schedules that were tuned per model that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(__name__, "schedules that were tuned per model", "loglinear_interp() AlignYourStepsScheduler:object")
