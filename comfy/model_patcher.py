"""ComfyUI's names for patching models; each lives in the module it is imported from."""

from comfy.patching.attachments import AutoPatcherEjector
from comfy.patching.hook_patches import MemoryCounter, create_hook_patches_clone
from comfy.patching.layers import move_weight_functions, wipe_lowvram_weight
from comfy.patching.low_vram import LowVramPatch
from comfy.patching.model_options import (
    create_model_options_clone,
    set_model_options_patch_replace,
    set_model_options_post_cfg_function,
    set_model_options_pre_cfg_function,
)
from comfy.patching.patcher import CoreModelPatcher, ModelPatcher, ModelPatcherDynamic
from comfy.patching.weight_values import get_key_weight
from comfy.utils import string_to_seed

__all__ = [
    "AutoPatcherEjector",
    "CoreModelPatcher",
    "LowVramPatch",
    "MemoryCounter",
    "ModelPatcher",
    "ModelPatcherDynamic",
    "create_hook_patches_clone",
    "create_model_options_clone",
    "get_key_weight",
    "move_weight_functions",
    "set_model_options_patch_replace",
    "set_model_options_post_cfg_function",
    "set_model_options_pre_cfg_function",
    "string_to_seed",
    "wipe_lowvram_weight",
]
