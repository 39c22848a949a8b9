"""What image transformers share."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.rmsnorm import rms_norm

__all__ = ["pad_to_patch_size", "rms_norm"]


def pad_to_patch_size(img: torch.Tensor, patch_size: Sequence[int] = (2, 2), padding_mode: str = "circular") -> torch.Tensor:
    """*img* (batch x channels x one length per entry of *patch_size*) with each length rounded up to a multiple, padded at its end.

    While torch traces, where the circular padding is not recorded, the picture is mirrored instead.
    """
    if padding_mode == "circular" and (torch.jit.is_tracing() or torch.jit.is_scripting()):
        padding_mode = "reflect"
    missing = [-length % patch for length, patch in zip(img.shape[2:], patch_size)]
    return F.pad(img, [amount for end in reversed(missing) for amount in (0, end)], mode=padding_mode)
