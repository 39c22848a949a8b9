"""The process's registry of patched models, and its memo of nodes."""

from __future__ import annotations

import functools

from comfy.patch_identity.content_memo import ContentMemo
from comfy.patch_identity.fingerprints import fingerprints
from comfy.patch_identity.registry import PatchRegistry
from comfy.patching.node_memo import NodeMemo
from comfy.patching.patch_carrier import PatcherCarrier


@functools.cache
def patched_models() -> PatchRegistry:
    """The one that ``comfy_api`` and the core's own nodes use; made at the first call."""
    return PatchRegistry(PatcherCarrier(), fingerprints())


@functools.cache
def node_memo() -> NodeMemo:
    """The one that the executor asks; made at the first call. Its patches are kept apart from those of :func:`patched_models`."""
    return NodeMemo(PatchRegistry(PatcherCarrier(), fingerprints()), fingerprints())


@functools.cache
def content_memo() -> ContentMemo:
    """What nodes computed beside patched models; made at the first call."""
    return ContentMemo(fingerprints())


def forget() -> int:
    """Let go of every patched model that was built before, and of what was computed for them; returns the bytes of tensors."""
    return patched_models().clear() + node_memo().clear() + content_memo().clear()
