"""Stable Audio's networks (Open 1.0 and its relatives, 3) in ComfyUI's tree, hooks and published weight names.

Shapes: B batch, C channels of a latent, T places of it, N tokens, W width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.ops
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.audio.blocks import (
    GLU,
    Attention,
    FeedForward,
    FourierFeatures,
    LayerNorm,
    Options,
    RMSNorm,
    RotaryEmbedding,
    TransformerBlock,
    apply_rotary_pos_emb,
)
from comfy.ldm.audio.embedders import ExpoFourierFeatures
from comfy.placeholders import placeholders

__all__ = [
    "GLU",
    "Attention",
    "AudioDiffusionTransformer",
    "ContinuousTransformer",
    "FeedForward",
    "FourierFeatures",
    "LayerNorm",
    "RMSNorm",
    "RotaryEmbedding",
    "TransformerBlock",
    "apply_rotary_pos_emb",
]

TIME_FEATURES = 256
LEAST_TURNED = 32  # of a head's values; else half of them
SLOWEST, FASTEST = 0.5, 10000.0  # of the frequencies of times that are not learned
PREPENDED, MODULATING = "prepend", "adaLN"  # what becomes of the time: a token before the others, or scales, shifts and gates


class ContinuousTransformer(torch.nn.Module):
    """The blocks, between two linear layers. ``patches_replace["dit"]`` replaces ``("double_block", number)``.

    *global_cond_dim*: values of the vector that a layer makes the blocks' scales, shifts and gates of, if there is one; *blocks*: further
    settings of :class:`TransformerBlock`.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        dim_in: int,
        dim_out: int,
        dim_heads: int,
        cond_token_dim: int,
        num_memory_tokens: int = 0,
        global_cond_dim: int | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
        **blocks: Any,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.project_in = operations.Linear(dim_in, dim, bias=False, **kept)
        self.project_out = operations.Linear(dim, dim_out, bias=False, **kept)
        self.rotary_pos_emb = RotaryEmbedding(max(dim_heads // 2, LEAST_TURNED), **kept)
        self.num_memory_tokens = num_memory_tokens
        if num_memory_tokens:
            self.memory_tokens = torch.nn.Parameter(torch.empty(num_memory_tokens, dim, **kept))
        self.global_cond_embedder: torch.nn.Module | None = None
        if global_cond_dim is not None:
            wide, narrow = operations.Linear(dim, dim * 6, **kept), operations.Linear(global_cond_dim, dim, **kept)
            self.global_cond_embedder = torch.nn.Sequential(narrow, torch.nn.SiLU(), wide)
        blocks["global_cond_shared_embed"] = global_cond_dim is not None
        self.layers = torch.nn.ModuleList(
            TransformerBlock(dim, dim_heads, cond_token_dim, **kept, operations=operations, **blocks) for _ in range(depth)
        )

    def forward(
        self,
        x: torch.Tensor,
        first: torch.Tensor | None,
        context: torch.Tensor | None,
        transformer_options: Options,
        global_cond: torch.Tensor | None = None,
        local_add_cond: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """*x* B x T x values, *first* B x tokens x W, which stand before it: the result without the first tokens. *global_cond* B x values;
        *local_add_cond* B x T x values.
        """
        x, places = self.project_in(x), x.shape[1]
        x = x if first is None else torch.cat((first, x), dim=1)
        if self.num_memory_tokens:
            x = torch.cat((comfy.ops.cast_to_input(self.memory_tokens, x).expand(len(x), -1, -1), x), dim=1)
        if global_cond is not None and self.global_cond_embedder is not None:
            global_cond = self.global_cond_embedder(global_cond)
        turns = self.rotary_pos_emb(x.shape[1], x.device)
        transformer_options |= {"total_blocks": len(self.layers), "block_type": "double"}
        for number, layer in enumerate(self.layers):
            transformer_options["block_index"] = number

            def original(given: Mapping[str, Any], layer: torch.nn.Module = layer) -> dict[str, Any]:
                return {"img": layer(given["img"], given["txt"], given["pe"], given["transformer_options"], given["vec"], local_add_cond)}

            given = {"img": x, "txt": context, "vec": global_cond, "pe": turns, "transformer_options": transformer_options}
            x = run_block(transformer_options, ("double_block", number), given, original)["img"]
        return self.project_out(x[:, x.shape[1] - places :])


class AudioDiffusionTransformer(DiffusionTransformer):
    """The network. *global_cond_type*: time, and how long the sound is to be, are a token before those of the latent ("prepend"), or scale,
    shift and gate in every block ("adaLN").

    Raises ``ValueError`` for settings that no published network has.
    """

    PATCH_BLOCKS = {"double_block": "blocks"}

    def __init__(
        self,
        io_channels: int = 64,
        embed_dim: int = 1536,
        cond_token_dim: int = 768,
        project_cond_tokens: bool = False,
        global_cond_dim: int = 1536,
        input_concat_dim: int = 0,
        depth: int = 24,
        num_heads: int = 24,
        num_memory_tokens: int = 0,
        attn_kwargs: Mapping[str, Any] | None = None,
        norm_type: str = "layer_norm",
        local_add_cond_dim: int | None = None,
        global_cond_type: str = PREPENDED,
        global_cond_shared_embed: bool = False,
        timestep_features_type: str = "learned",
        audio_model: str = "",
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if kwargs or global_cond_shared_embed != (global_cond_type == MODULATING):
            settings = ", ".join(sorted(kwargs)) or f"global_cond_type {global_cond_type!r}"
            raise ValueError(f"networks of Stable Audio's kind with {settings} are not supported; supported: Open 1.0 and 3")
        self.dtype, self.cond_token_dim, self.input_concat_dim = dtype, cond_token_dim, input_concat_dim
        self.global_cond_type = global_cond_type
        kept = {"dtype": dtype, "device": device}
        context, channels = embed_dim if project_cond_tokens else cond_token_dim, io_channels + input_concat_dim

        def embedder(inner: int, outer: int, bias: bool) -> torch.nn.Sequential:
            first, last = (operations.Linear(width, outer, bias=bias, **kept) for width in (inner, outer))
            return torch.nn.Sequential(first, torch.nn.SiLU(), last)

        learned = timestep_features_type != "expo"
        self.timestep_features = (
            FourierFeatures(1, TIME_FEATURES, **kept) if learned else ExpoFourierFeatures(TIME_FEATURES, SLOWEST, FASTEST)
        )
        self.to_timestep_embed = embedder(TIME_FEATURES, embed_dim, True)
        self.to_cond_embed = embedder(cond_token_dim, context, False)
        self.to_global_embed = embedder(global_cond_dim, embed_dim, False)
        self.transformer = ContinuousTransformer(
            embed_dim,
            depth,
            channels,
            io_channels,
            embed_dim // num_heads,
            context,
            num_memory_tokens,
            embed_dim if global_cond_shared_embed else None,
            norm_type=norm_type,
            local_add_cond_dim=local_add_cond_dim,
            attn_kwargs=attn_kwargs,
            **kept,
            operations=operations,
        )
        self.preprocess_conv = operations.Conv1d(channels, channels, 1, bias=False, **kept)
        self.postprocess_conv = operations.Conv1d(io_channels, io_channels, 1, bias=False, **kept)

    @property
    def blocks(self) -> torch.nn.ModuleList:
        """The blocks that can be replaced."""
        return self.transformer.layers

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor | None = None,
        global_embed: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timestep, context, global_embed, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor | None = None,
        global_embed: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        local_add_cond: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x C x T, *timestep* B, *context* B x tokens x width of the text encoder, *global_embed* B x values (the times),
        *local_add_cond* B x values x T.
        """
        context = None if context is None else self.to_cond_embed(context)
        vector = self.to_timestep_embed(self.timestep_features(timestep[:, None]).to(x.dtype))
        if global_embed is not None:
            vector = vector + self.to_global_embed(global_embed)
        first, modulating = (vector[:, None], None) if self.global_cond_type == PREPENDED else (None, vector)
        local = None if local_add_cond is None else local_add_cond.transpose(1, 2)
        x = self.preprocess_conv(x) + x
        out = self.transformer(x.transpose(1, 2), first, context, dict(transformer_options or {}), modulating, local).transpose(1, 2)
        return self.postprocess_conv(out) + out


__getattr__, __dir__ = placeholders(
    __name__, "Stable Audio models", "AbsolutePositionalEmbedding ScaledSinusoidalEmbedding ConformerModule rotate_half()"
)
