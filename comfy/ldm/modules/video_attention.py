"""The transformer over the frames of a video in Stable Video Diffusion's UNet, in ComfyUI's tree and with its constructor."""

from __future__ import annotations

from typing import Any

import torch

import comfy.ops
from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.util import AlphaBlender


class SpatialVideoTransformer(SpatialTransformer):
    """A :class:`SpatialTransformer` whose blocks are each followed by one in which every place attends to itself in other frames.

    *use_spatial_context*: the latter's cross-attention sees the first frame's context where it has none of its own.
    """

    def __init__(
        self,
        in_channels: int,
        n_heads: int,
        d_head: int,
        depth: int = 1,
        dropout: float = 0.0,
        use_linear: bool = False,
        context_dim: Any = None,
        use_spatial_context: bool = False,
        timesteps: int | None = None,
        merge_strategy: str = "fixed",
        merge_factor: float = 0.5,
        time_context_dim: int | None = None,
        ff_in: bool = False,
        checkpoint: bool = False,
        time_depth: int = 1,
        disable_self_attn: bool = False,
        disable_temporal_crossattention: bool = False,
        max_time_embed_period: int = 10000,
        attn_precision: torch.dtype | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = comfy.ops.disable_weight_init,
    ) -> None:
        kept: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        shared: dict[str, Any] = {"dropout": dropout, "disable_self_attn": disable_self_attn, "attn_precision": attn_precision, **kept}
        super().__init__(in_channels, n_heads, d_head, depth, context_dim=context_dim, use_linear=use_linear, **shared)
        width = n_heads * d_head
        self.depth, self.time_depth, self.max_time_embed_period = depth, time_depth, max_time_embed_period
        self.use_spatial_context = use_spatial_context
        block: dict[str, Any] = {
            "context_dim": context_dim if use_spatial_context else time_context_dim,
            "inner_dim": width,
            "ff_in": ff_in,
        }
        block["disable_temporal_crossattention"] = disable_temporal_crossattention
        self.time_stack = torch.nn.ModuleList(BasicTransformerBlock(width, n_heads, d_head, **block, **shared) for _ in range(depth))
        sizes = ((in_channels, 4 * in_channels), (4 * in_channels, in_channels))
        first, last = (operations.Linear(*size, dtype=dtype, device=device) for size in sizes)
        self.time_pos_embed = torch.nn.Sequential(first, torch.nn.SiLU(), last)
        self.time_mixer = AlphaBlender(merge_factor, merge_strategy)
        if device is not None:
            self.time_mixer.to(device)

    def forward(  # type: ignore[override]
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        time_context: torch.Tensor | None = None,
        timesteps: int = 1,
        image_only_indicator: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """(B · frames) x C x height x width; *context* (B · frames) x tokens x width, *timesteps* the number of frames."""
        options = {} if transformer_options is None else transformer_options
        options["activations_shape"] = list(x.shape)
        height, width = x.shape[-2:]
        of_time = self._time_context(context, time_context, timesteps, height * width)
        tokens = self.norm(x)
        if not self.use_linear:
            tokens = self.proj_in(tokens)
        tokens = tokens.flatten(2).transpose(1, 2).contiguous()
        if self.use_linear:
            tokens = self.proj_in(tokens)
        numbers = torch.arange(timesteps, device=x.device).repeat(len(x) // timesteps)
        places = self.time_pos_embed(timestep_embedding(numbers, self.in_channels, self.max_time_embed_period).to(tokens.dtype))[:, None]
        for index, (block, across) in enumerate(zip(self.transformer_blocks, self.time_stack)):
            options["block_index"] = index
            tokens = block(tokens, context=context, transformer_options=options)
            by_place = (tokens + places).unflatten(0, (-1, timesteps)).transpose(1, 2)  # B x places x frames x C
            attended = across(by_place.flatten(0, 1), context=of_time, transformer_options=options)
            by_frame = attended.unflatten(0, by_place.shape[:2]).transpose(1, 2).flatten(0, 1)
            tokens = self.time_mixer(x_spatial=tokens, x_temporal=by_frame, image_only_indicator=image_only_indicator)
        if self.use_linear:
            tokens = self.proj_out(tokens)
        out = tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()
        return (out if self.use_linear else self.proj_out(out)) + x

    def _time_context(self, context: torch.Tensor | None, given: torch.Tensor | None, frames: int, places: int) -> torch.Tensor | None:
        """What the blocks over frames see besides these: (B · places) x tokens x width."""
        if self.use_spatial_context:
            given = context if given is None else given
            return None if given is None else given[::frames].repeat_interleave(places, dim=0)
        if given is None:
            return None
        repeated = given.repeat_interleave(places, dim=0)
        return repeated[:, None] if repeated.ndim == 2 else repeated
