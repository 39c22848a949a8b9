"""The process's registry of patched models."""

from __future__ import annotations

import functools

from comfy.patch_identity.fingerprints import fingerprints
from comfy.patch_identity.registry import PatchRegistry
from comfy.patching.patch_carrier import PatcherCarrier


@functools.cache
def patched_models() -> PatchRegistry:
    """The one that ``comfy_api`` and the core's own nodes use; made at the first call."""
    return PatchRegistry(PatcherCarrier(), fingerprints())
