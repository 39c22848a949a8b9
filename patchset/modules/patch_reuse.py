"""Equal patches get equal ids, so that a LoRA which comes again leaves the patched weights where they are (--reuse-equal-patches)."""

import hashlib
import uuid
from typing import Any

import torch

import comfy.weight_adapter
from comfy.cli_args import args

PLAIN = (str, int, float, bool, type(None))
TENSORS = (torch.Tensor, torch.nn.Parameter)


def next_patches_uuid(patcher: Any, added: list[tuple[Any, Any]]) -> uuid.UUID:
    """The id of *patcher* after it got the patches *added* (target and patch, in order): the same for equal contents.

    A new one when the flag is off, or when an added patch is anything but the numbers, texts and host tensors of a LoRA.
    """
    if not getattr(args, "reuse_equal_patches", False):
        return uuid.uuid4()
    digest = hashlib.sha256(patcher.patches_uuid.bytes)
    _add(digest, tuple(patcher.patches.items()), False)  # strengths, and what was done to the table without a new id
    return uuid.UUID(bytes=digest.digest()[:16]) if _add(digest, added) else uuid.uuid4()


def _add(digest: Any, value: Any, with_contents: bool = True) -> bool:
    """Hash *value* with its type and size, tensors read anew each time; whether that says all that it does."""
    kind = type(value)
    digest.update(kind.__qualname__.encode())
    if kind in PLAIN:
        text = repr(value).encode("utf-8", "backslashreplace")
        digest.update(b" %d:%s" % (len(text), text))
        return True
    if kind in (tuple, list):
        digest.update(b" %d:" % len(value))
        known = [_add(digest, item, with_contents) for item in value]  # all of them, also after one that is not
        return all(known)
    if kind in comfy.weight_adapter.adapters:
        return _add(digest, value.weights, with_contents)
    if kind not in TENSORS or value.device.type != "cpu" or value.layout != torch.strided:
        return False
    digest.update(f" {value.dtype} {tuple(value.shape)}:".encode())
    if with_contents:
        digest.update(value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy())
    return True
