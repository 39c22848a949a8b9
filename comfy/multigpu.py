"""Names of computing on several accelerators that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "computing on several accelerators",
    "MultiGPUThreadPool:object GPUOptions:object GPUOptionsGroup:object create_multigpu_deepclones() load_balance_devices() "
    "round_preserved()",
)
