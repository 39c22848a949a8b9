"""Attention masks over text tokens and the tokens of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")


def upscale_dit_mask(mask: torch.Tensor, img_size_in: tuple[int, int], img_size_out: tuple[int, int]) -> torch.Tensor:
    """*mask* (B x) N x N of floats, made for a picture of *img_size_in* tokens (rows, columns) behind the text's, for *img_size_out*.

    The picture's share is interpolated along both dimensions of the mask. Returns B x N' x N', or *mask* itself for equal sizes. Raises
    ``ValueError`` for another number of dimensions.
    """
    if tuple(img_size_in) == tuple(img_size_out):
        return mask
    batched = mask[None] if mask.ndim == 2 else mask
    if batched.ndim != 3:
        raise ValueError(f"an attention mask is (batch x) tokens x tokens; this one is {list(mask.shape)}")
    keys = _resized(batched, img_size_in, img_size_out)
    return _resized(keys.transpose(1, 2), img_size_in, img_size_out).transpose(1, 2)


def _resized(mask: torch.Tensor, size_in: tuple[int, int], size_out: tuple[int, int]) -> torch.Tensor:
    """*mask* with the picture's tokens in its last dimension interpolated."""
    words = mask.shape[-1] - size_in[0] * size_in[1]
    picture = torch.nn.functional.interpolate(mask[..., words:].unflatten(-1, size_in), size=size_out, mode="bilinear")
    return torch.cat((mask[..., :words], picture.flatten(-2)), dim=-1)
