"""Wan's network for videos that are made some frames at a time: frames see those before them, whose keys and values are kept.

The weights are those of Wan 2.1. Shapes: B batch, N tokens of the frames that are made, C width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from comfy.ldm.common_dit import pad_to_patch_size
from comfy.ldm.wan.layers import WHOLE_WINDOW, WanAttentionBlock, WanSelfAttention
from comfy.ldm.wan.model import WanModel

__all__ = ["CausalWanAttentionBlock", "CausalWanModel", "CausalWanSelfAttention", "FramesBefore"]

STATE = "ar_state"
Options = dict[str, Any]


class FramesBefore:
    """Keys and values of the frames of one video that are made, for every layer and side of guidance. Owned by the sampler that makes it.

    *frames* is how many the whole video has. What the network computes for the frames after them is kept by :meth:`keep` only.
    """

    def __init__(self, frames: int) -> None:
        self.frames, self.made = frames, 0
        self._held: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def joined(self, options: Options, frames: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the frames that are made and of *frames* more (*key*, *value*: B x N x C), for the layer of *options*."""
        each = key.shape[1] // frames
        place = (tuple(map(str, options.get("uuids") or ())), options["block_index"])
        if place not in self._held:
            held: Any = tuple(part.new_empty(len(part), self.frames * each, part.shape[2]) for part in (key, value))
            self._held[place] = held
        start, stop = self.made * each, (self.made + frames) * each
        for held, part in zip(self._held[place], (key, value)):
            held[:, start:stop] = part
        keys, values = self._held[place]
        return keys[:, :stop], values[:, :stop]

    def keep(self, frames: int) -> None:
        """The last *frames* that were computed are made."""
        self.made += frames


class CausalWanSelfAttention(WanSelfAttention):
    """Attention that also sees the frames before, if ``ar_state`` of the options holds them."""

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: Options, **settings: Any) -> torch.Tensor:
        before = options.get(STATE)
        if before is not None:
            key, value = before.joined(options, options["grid_sizes"][0], key, value)
        return super()._attend(query, key, value, options, **settings)


class CausalWanAttentionBlock(WanAttentionBlock):
    """A block with that attention."""

    def __init__(
        self,
        cross_attn_type: str,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        window_size: Sequence[int] = WHOLE_WINDOW,
        qk_norm: bool = True,
        cross_attn_norm: bool = False,
        eps: float = 1e-6,
        operation_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(cross_attn_type, dim, ffn_dim, num_heads, window_size, qk_norm, cross_attn_norm, eps, operation_settings)
        self.self_attn = CausalWanSelfAttention(dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings)


class CausalWanModel(WanModel):
    """The network. Without ``ar_state`` in ``transformer_options`` it makes whole videos, as Wan 2.1 does."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, wan_attn_block_class=CausalWanAttentionBlock)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        time_dim_concat: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for a whole video, or with ``ar_state`` for the frames *x* that stand after those that it holds.

        Arguments as for :meth:`WanModel._forward`.
        """
        options = {} if transformer_options is None else transformer_options
        before = options.get(STATE)
        if before is None:
            return super()._forward(x, timestep, context, clip_fea, time_dim_concat, options, **kwargs)
        frames, height, width = x.shape[2:]
        padded = pad_to_patch_size(x, self.patch_size)
        places: Options = {"device": x.device, "dtype": x.dtype, "transformer_options": options}
        freqs = self.rope_encode(padded.shape[2], height, width, before.made, **places)
        times = timestep[:, None].expand(-1, frames)
        out = self.forward_orig(padded, times, context, clip_fea=clip_fea, freqs=freqs, transformer_options=options)
        return out[:, :, :frames, :height, :width]
