"""ComfyUI's names for patching models; each lives in the module it is imported from."""

from comfy.patcher_extension import PatcherInjection
from comfy.patching.attachments import AutoPatcherEjector
from comfy.patching.hook_patches import MemoryCounter, create_hook_patches_clone
from comfy.patching.layers import move_weight_functions, wipe_lowvram_weight
from comfy.patching.load_list import low_vram_patch_estimate_vram
from comfy.patching.low_vram import LowVramPatch
from comfy.patching.model_options import (
    create_model_options_clone,
    set_model_options_patch_replace,
    set_model_options_post_cfg_function,
    set_model_options_pre_cfg_function,
)
from comfy.patching.patcher import CoreModelPatcher, ModelPatcher, ModelPatcherDynamic
from comfy.patching.weight_values import get_key_weight
from comfy.placeholders import placeholders
from comfy.utils import string_to_seed

__all__ = [
    "AutoPatcherEjector",
    "CoreModelPatcher",
    "LowVramPatch",
    "MemoryCounter",
    "ModelPatcher",
    "ModelPatcherDynamic",
    "PatcherInjection",
    "create_hook_patches_clone",
    "create_model_options_clone",
    "get_key_weight",
    "low_vram_patch_estimate_vram",
    "move_weight_functions",
    "set_model_options_patch_replace",
    "set_model_options_post_cfg_function",
    "set_model_options_pre_cfg_function",
    "string_to_seed",
    "wipe_lowvram_weight",
]

__getattr__, __dir__ = placeholders(__name__, "quantised weights", "QuantizedTensor=comfy.quant_ops")
