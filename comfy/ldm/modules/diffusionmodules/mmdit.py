"""The network of Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv:2403.03206) with ComfyUI's arguments, attributes and weight names.

Shapes: B batch, N tokens of the picture, T of the text, C channels of a token (64 per head).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ops
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.mmdit_layers import (
    EPS,
    DismantledBlock,
    FinalLayer,
    JointBlock,
    Mlp,
    PatchEmbed,
    RMSNorm,
    SelfAttention,
    TimestepEmbedder,
    VectorEmbedder,
    block_mixing,
    gate_cat,
    get_2d_sincos_pos_embed_torch,
    modulate,
    split_qkv,
    tanh_gelu,
)
from comfy.placeholders import placeholders

__all__ = [
    "ContextProcessor",
    "ContextProcessorBlock",
    "DismantledBlock",
    "FinalLayer",
    "JointBlock",
    "MMDiT",
    "Mlp",
    "OpenAISignatureMMDITWrapper",
    "PatchEmbed",
    "RMSNorm",
    "SelfAttention",
    "SelfAttentionContext",
    "TimestepEmbedder",
    "VectorEmbedder",
    "block_mixing",
    "gate_cat",
    "get_2d_sincos_pos_embed_torch",
    "modulate",
    "split_qkv",
]

__getattr__, __dir__ = placeholders(
    __name__,
    "what trains Stable Diffusion 3 models",
    "default() get_2d_sincos_pos_embed() get_2d_sincos_pos_embed_from_grid() get_1d_sincos_pos_embed_from_grid() "
    "get_1d_sincos_pos_embed_from_grid_torch() SwiGLUFeedForward",
)

HEAD = 64
Options = dict[str, Any]


class SelfAttentionContext(torch.nn.Module):
    """Attention of text tokens to each other."""

    def __init__(self, dim: int, heads: int = 8, dim_head: int = 64, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.heads, self.dim_head = heads, dim // heads
        self.qkv = operations.Linear(dim, dim * 3, dtype=dtype, device=device)
        self.proj = operations.Linear(dim, dim, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x T x C."""
        q, k, v = (part.flatten(2) for part in split_qkv(self.qkv(x), self.dim_head))
        return self.proj(optimized_attention(q, k, v, heads=self.heads))


class ContextProcessorBlock(torch.nn.Module):
    """A transformer block over text tokens."""

    def __init__(self, context_size: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        norm = {"elementwise_affine": False, "eps": EPS, **kept}
        self.norm1 = operations.LayerNorm(context_size, **norm)
        self.attn = SelfAttentionContext(context_size, operations=operations, **kept)
        self.norm2 = operations.LayerNorm(context_size, **norm)
        self.mlp = Mlp(context_size, context_size * 4, act_layer=tanh_gelu, operations=operations, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x T x C."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ContextProcessor(torch.nn.Module):
    """Blocks over the text before it meets the picture."""

    def __init__(self, context_size: int, num_layers: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.layers = torch.nn.ModuleList(ContextProcessorBlock(context_size, **made) for _ in range(num_layers))
        self.norm = operations.LayerNorm(context_size, elementwise_affine=False, eps=EPS, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x T x C."""
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class MMDiT(DiffusionTransformer):
    """Joint blocks over text and picture tokens. ``pos_embed`` holds the positions of the largest square of patches, or is None: computed.

    Made on *device*, without values. *x_block_self_attn_layers* number the blocks in which the picture attends to itself once more.
    """

    PATCH_BLOCKS = {"double_block": "joint_blocks"}
    context_processor: ContextProcessor | None
    y_embedder: VectorEmbedder | None
    pos_embed: torch.nn.Parameter | None
    joint_blocks: Any
    final_layer: Any

    def __init__(
        self,
        input_size: int | None = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        depth: int = 28,
        mlp_ratio: float = 4.0,
        adm_in_channels: int | None = None,
        context_embedder_config: Mapping[str, Any] | None = None,
        out_channels: int | None = None,
        pos_embed_scaling_factor: float | None = None,
        pos_embed_max_size: int | None = None,
        num_patches: int | None = None,
        qk_norm: str | None = None,
        qkv_bias: bool = True,
        context_processor_layers: int | None = None,
        x_block_self_attn: bool = False,
        x_block_self_attn_layers: Sequence[int] = (),
        context_size: int = 4096,
        num_blocks: int | None = None,
        final_layer: bool = True,
        skip_blocks: bool = False,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        image_model: str | None = None,
    ) -> None:
        super().__init__()
        operations = operations or comfy.ops.disable_weight_init
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        made = {**kept, "operations": operations}
        self.dtype, self.in_channels, self.patch_size = dtype, in_channels, patch_size
        self.out_channels = out_channels or in_channels
        self.pos_embed_scaling_factor, self.pos_embed_max_size = pos_embed_scaling_factor, pos_embed_max_size
        self.x_block_self_attn_layers = list(x_block_self_attn_layers)
        self.depth = self.num_heads = depth
        self.hidden_size = width = HEAD * depth
        self.x_embedder = PatchEmbed(input_size, patch_size, in_channels, width, **made)
        self.t_embedder = TimestepEmbedder(width, **made)
        self.y_embedder = None if adm_in_channels is None else VectorEmbedder(adm_in_channels, width, **made)
        processed = context_processor_layers is not None
        self.context_processor = ContextProcessor(context_size, context_processor_layers or 0, **made) if processed else None
        self.context_embedder: Any = torch.nn.Identity()
        if context_embedder_config is not None:
            self.context_embedder = operations.Linear(**context_embedder_config["params"], **kept)
        places = None if num_patches is None else torch.nn.Parameter(torch.empty((1, num_patches, width), **kept))
        self.register_parameter("pos_embed", places)
        if not skip_blocks:
            block: dict[str, Any] = {"mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias, "qk_norm": qk_norm, **made}
            self.joint_blocks = self._blocks(depth if num_blocks is None else num_blocks, final_layer, x_block_self_attn, block)
        if final_layer:
            self.final_layer = FinalLayer(width, patch_size, self.out_channels, **made)

    def _blocks(self, count: int, ends: bool, twice: bool, sizes: dict[str, Any]) -> torch.nn.ModuleList:
        """*count* joint blocks; nothing needs the text after the last one where the network *ends* with it."""
        own = self.x_block_self_attn_layers
        return torch.nn.ModuleList(
            JointBlock(
                self.hidden_size, self.depth, pre_only=ends and number == count - 1, x_block_self_attn=twice or number in own, **sizes
            )
            for number in range(count)
        )

    def _patches(self, size: Sequence[int]) -> tuple[int, int]:
        """How many patches there are down and across a latent of *size*."""
        return (size[0] + 1) // self.patch_size, (size[1] + 1) // self.patch_size

    def cropped_pos_embed(self, hw: Sequence[int], device: Any = None) -> torch.Tensor:
        """Positions of the patches of a latent of size *hw*: 1 x N x C, from the middle of the largest square.

        Raises ``ValueError`` for pictures larger than that.
        """
        rows, columns = self._patches(hw)
        places = self.pos_embed
        if places is None:
            return get_2d_sincos_pos_embed_torch(self.hidden_size, columns, rows, device=device)
        side = self.pos_embed_max_size or 0
        if max(rows, columns) > side:
            raise ValueError(
                f"this model knows the positions of {side} x {side} patches, but the latent has {rows} x {columns}; make a smaller one"
            )
        top, left = (side - rows) // 2, (side - columns) // 2
        square = places.unflatten(1, (side, side))
        return square[:, top : top + rows, left : left + columns].flatten(1, 2)

    def unpatchify(self, x: torch.Tensor, hw: Sequence[int]) -> torch.Tensor:
        """The latent of patches *x* (B x N x values): B x channels x height x width, in whole patches."""
        side = self.patch_size
        patches = x.unflatten(1, self._patches(hw)).unflatten(-1, (side, side, self.out_channels))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    def forward_core_with_concat(
        self, x: torch.Tensor, c_mod: torch.Tensor, context: Any = None, control: Any = None, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """The blocks and the last layer over picture tokens *x* (B x N x C) and text tokens *context*; *c_mod* is what modulates them."""
        options = {} if transformer_options is None else transformer_options
        residuals = () if control is None else control.get("output") or ()
        for number, block in enumerate(self.joint_blocks):

            def original(args: Any, block: Any = block) -> dict[str, Any]:
                words, picture = block(args["txt"], args["img"], c=args["vec"], transformer_options=args["transformer_options"])
                return {"txt": words, "img": picture}

            given = {"img": x, "txt": context, "vec": c_mod, "transformer_options": options}
            out = run_block(options, ("double_block", number), given, original)
            context, x = out["txt"], out["img"]
            if number < len(residuals) and residuals[number] is not None:
                x += residuals[number]
        return self.final_layer(x, c_mod)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor | None = None,
        y: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, y, control, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor | None = None,
        y: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x height x width, *timesteps* B (0…1000), *context* B x T x text width, *y* B x pooled width.

        *control* holds residuals for the picture's tokens after each block, as "output".
        """
        height, width = x.shape[-2:]
        if context is not None:
            if self.context_processor is not None:
                context = self.context_processor(context)
            context = self.context_embedder(context)
        tokens = self.x_embedder(x) + comfy.ops.cast_to_input(self.cropped_pos_embed((height, width), x.device), x)
        modulation = self.t_embedder(timesteps, dtype=x.dtype)
        if y is not None and self.y_embedder is not None:
            modulation = modulation + self.y_embedder(y)
        out = self.forward_core_with_concat(tokens, modulation, context, control, transformer_options)
        return self.unpatchify(out, (height, width))[:, :, :height, :width]


class OpenAISignatureMMDITWrapper(MMDiT):
    """The same, under the name by which models hold it."""
