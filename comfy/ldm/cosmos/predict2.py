"""The network of Cosmos-Predict2, with ComfyUI's arguments, attributes, weight names and hooks.

Shapes: B batch, F frames, R rows, K columns (of patches), N = F·R·K tokens, T tokens of the text, C channels, H heads, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch

import comfy.ldm.common_dit
import comfy.ops
from comfy.dit.network import DiffusionTransformer
from comfy.ldm.cosmos.embedders import PatchEmbed, TimestepEmbedding, Timesteps, joined_cells, with_padding_mask
from comfy.ldm.cosmos.layers import EPS, GPT2FeedForward, modulated, modulation, of_time, rotated_halves
from comfy.ldm.cosmos.position_embedding import VideoRopePosition3DEmb
from comfy.ldm.modules.attention import optimized_attention

__all__ = [
    "Attention",
    "Block",
    "FinalLayer",
    "GPT2FeedForward",
    "MiniTrainDIT",
    "PatchEmbed",
    "TimestepEmbedding",
    "Timesteps",
    "torch_attention_op",
]

Options = dict[str, Any]


def torch_attention_op(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
    """What queries attend to: B x N x (H · D); *q*, *k* and *v* are B x N x H x D."""
    heads = (part.transpose(1, 2) for part in (q, k, v))
    return optimized_attention(*heads, q.shape[-2], skip_reshape=True, transformer_options=transformer_options or {})


class Attention(torch.nn.Module):
    """Attention to the tokens themselves (no *context_dim*) or to the text, with normalised queries and keys."""

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        n_heads: int = 8,
        head_dim: int = 64,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.is_selfattn = context_dim is None
        self.n_heads, self.head_dim, self.query_dim = n_heads, head_dim, query_dim
        self.context_dim = source = query_dim if context_dim is None else context_dim
        kept: dict[str, Any] = {"device": device, "dtype": dtype}
        inner = n_heads * head_dim
        self.q_proj = operations.Linear(query_dim, inner, bias=False, **kept)
        self.q_norm = operations.RMSNorm(head_dim, eps=EPS, **kept)
        self.k_proj = operations.Linear(source, inner, bias=False, **kept)
        self.k_norm = operations.RMSNorm(head_dim, eps=EPS, **kept)
        self.v_proj = operations.Linear(source, inner, bias=False, **kept)
        self.output_proj = operations.Linear(inner, query_dim, bias=False, **kept)
        self.attn_op = torch_attention_op

    def compute_qkv(
        self, x: torch.Tensor, context: torch.Tensor | None = None, rope_emb: Any = None, transformer_options: Options | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and keys (normalised, in self-attention rotated) and values: B x N x H x D, after the packs' patches of their inputs."""
        options = {} if transformer_options is None else transformer_options
        q = x
        k = v = x if context is None else context
        extra = {**options, "n_heads": self.n_heads, "dim_head": self.head_dim}
        for patch in options.get("patches", {}).get("attn1_patch" if self.is_selfattn else "attn2_patch", ()):
            changed = patch(q, k, v, pe=rope_emb, attn_mask=None, extra_options=extra)
            q, k, v, rope_emb = changed.get("q", q), changed.get("k", k), changed.get("v", v), changed.get("pe", rope_emb)
        heads = (-1, self.head_dim)
        q, k = self.q_norm(self.q_proj(q).unflatten(-1, heads)), self.k_norm(self.k_proj(k).unflatten(-1, heads))
        if self.is_selfattn and rope_emb is not None:
            turns = rope_emb.squeeze(2).squeeze(0)
            q, k = rotated_halves(q, turns), rotated_halves(k, turns)
        return q, k, self.v_proj(v).unflatten(-1, heads)

    def compute_attention(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """What *q* attends to, projected: B x N x C."""
        return self.output_proj(self.attn_op(q, k, v, transformer_options=transformer_options))

    def forward(
        self, x: torch.Tensor, context: torch.Tensor | None = None, rope_emb: Any = None, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """*x* B x N x C, *context* B x T x text width, *rope_emb* 1 x N x 1 x D/2 x 2 x 2."""
        q, k, v = self.compute_qkv(x, context, rope_emb, transformer_options)
        return self.compute_attention(q, k, v, transformer_options)


class FinalLayer(torch.nn.Module):
    """From tokens to cells of the latent."""

    def __init__(
        self,
        hidden_size: int,
        spatial_patch_size: int,
        temporal_patch_size: int,
        out_channels: int,
        *,
        operations: Any,
        use_adaln_lora: bool = False,
        adaln_lora_dim: int = 256,
        **kept: Any,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.layer_norm = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=EPS, **kept)
        self.linear = operations.Linear(hidden_size, spatial_patch_size**2 * temporal_patch_size * out_channels, bias=False, **kept)
        self.adaln_modulation = modulation(hidden_size, 2, use_adaln_lora, adaln_lora_dim, kept, operations)

    def forward(self, x: torch.Tensor, emb: torch.Tensor, adaln_lora_B_T_3D: torch.Tensor | None = None) -> torch.Tensor:  # noqa: N803 - ComfyUI's name
        """B x F x R x K x C to B x F x R x K x values of a cell, for the embedded time *emb* (B x F x C)."""
        shift, scale = of_time(self.adaln_modulation, emb, adaln_lora_B_T_3D, self.hidden_size, 2)
        return self.linear(modulated(x, self.layer_norm, scale, shift))


class Block(torch.nn.Module):
    """Tokens attend to each other, then to the text, then pass a feed-forward layer; each step is modulated by the time."""

    def __init__(
        self,
        x_dim: int,
        context_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        *,
        operations: Any,
        use_adaln_lora: bool = False,
        adaln_lora_dim: int = 256,
        **kept: Any,
    ) -> None:
        super().__init__()
        norm = {"elementwise_affine": False, "eps": EPS, **kept}
        self.x_dim, self.use_adaln_lora = x_dim, use_adaln_lora
        self.layer_norm_self_attn = operations.LayerNorm(x_dim, **norm)
        self.self_attn = Attention(x_dim, None, num_heads, x_dim // num_heads, operations=operations, **kept)
        self.layer_norm_cross_attn = operations.LayerNorm(x_dim, **norm)
        self.cross_attn = Attention(x_dim, context_dim, num_heads, x_dim // num_heads, operations=operations, **kept)
        self.layer_norm_mlp = operations.LayerNorm(x_dim, **norm)
        self.mlp = GPT2FeedForward(x_dim, int(x_dim * mlp_ratio), operations=operations, **kept)
        for step in ("self_attn", "cross_attn", "mlp"):
            setattr(self, f"adaln_modulation_{step}", modulation(x_dim, 3, use_adaln_lora, adaln_lora_dim, kept, operations))

    def forward(
        self,
        x: torch.Tensor,
        emb: torch.Tensor,
        crossattn_emb: torch.Tensor,
        rope_emb_L_1_1_D: Any = None,  # noqa: N803 - ComfyUI's name
        adaln_lora_B_T_3D: torch.Tensor | None = None,  # noqa: N803 - ComfyUI's name
        extra_per_block_pos_emb: torch.Tensor | None = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """Tokens *x* (B x F x R x K x C) after the block, in their dtype; layers compute in that of the embedded time *emb* (B x F x C)."""
        options = {} if transformer_options is None else transformer_options
        if extra_per_block_pos_emb is not None:
            x = x + extra_per_block_pos_emb
        for step in ("self_attn", "cross_attn", "mlp"):
            shift, scale, gate = of_time(getattr(self, f"adaln_modulation_{step}"), emb, adaln_lora_B_T_3D, x.shape[-1], 3)
            normal = modulated(x, getattr(self, f"layer_norm_{step}"), scale, shift).to(emb.dtype)
            if step == "mlp":
                result = self._fed(normal, options)
            else:
                context = None if step == "self_attn" else crossattn_emb
                attended = getattr(self, step)(normal.flatten(1, 3), context, rope_emb=rope_emb_L_1_1_D, transformer_options=options)
                result = attended.unflatten(1, x.shape[1:4])
            x = torch.addcmul(x, gate.to(x.dtype), result.to(x.dtype))
        return x

    def _fed(self, x: torch.Tensor, options: Options) -> torch.Tensor:
        """The feed-forward layer's result, after the packs' patches of its input."""
        args: dict[str, Any] = {"x": x, "transformer_options": options}
        for patch in options.get("patches", {}).get("mlp_patch", ()):
            args = patch(args)
        return self.mlp(args["x"])


class MiniTrainDIT(DiffusionTransformer):
    """The network. Arguments that are not used describe what was trained; positions turn by ``rope3d`` alone.

    Patches of ``transformer_options``: ``post_input`` with the tokens, and ``attn1_patch``, ``attn2_patch`` and ``mlp_patch`` in blocks.
    """

    def __init__(
        self,
        *,
        model_channels: int = 768,
        num_heads: int = 16,
        num_blocks: int = 10,
        mlp_ratio: float = 4.0,
        patch_spatial: int,
        patch_temporal: int,
        in_channels: int,
        out_channels: int,
        concat_padding_mask: bool = True,
        crossattn_emb_channels: int = 1024,
        adaln_lora_dim: int = 256,
        use_adaln_lora: bool = False,
        rope_t_extrapolation_ratio: float = 1.0,
        rope_h_extrapolation_ratio: float = 1.0,
        rope_w_extrapolation_ratio: float = 1.0,
        rope_enable_fps_modulation: bool = True,
        operations: Any = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        operations = operations or comfy.ops.disable_weight_init
        made: dict[str, Any] = {"device": device, "dtype": dtype, "operations": operations}
        lora: dict[str, Any] = {"use_adaln_lora": use_adaln_lora, "adaln_lora_dim": adaln_lora_dim}
        self.dtype, self.in_channels, self.out_channels = dtype, in_channels, out_channels
        self.patch_spatial, self.patch_temporal, self.concat_padding_mask = patch_spatial, patch_temporal, concat_padding_mask
        self.model_channels, self.num_heads, self.num_blocks = model_channels, num_heads, num_blocks
        self.pos_embedder = VideoRopePosition3DEmb(
            head_dim=model_channels // num_heads,
            h_extrapolation_ratio=rope_h_extrapolation_ratio,
            w_extrapolation_ratio=rope_w_extrapolation_ratio,
            t_extrapolation_ratio=rope_t_extrapolation_ratio,
            enable_fps_modulation=rope_enable_fps_modulation,
        )
        self.t_embedder = torch.nn.Sequential(
            Timesteps(model_channels), TimestepEmbedding(model_channels, model_channels, use_adaln_lora, **made)
        )
        self.x_embedder = PatchEmbed(patch_spatial, patch_temporal, in_channels + int(concat_padding_mask), model_channels, **made)
        self.blocks = torch.nn.ModuleList(
            Block(model_channels, crossattn_emb_channels, num_heads, mlp_ratio, **lora, **made) for _ in range(num_blocks)
        )
        self.final_layer = FinalLayer(model_channels, patch_spatial, patch_temporal, out_channels, **lora, **made)
        self.t_embedding_norm = operations.RMSNorm(model_channels, eps=EPS, device=device, dtype=dtype)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        fps: Any = None,
        padding_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = kwargs.get("transformer_options") or {}
        return self.wrapped(x, timesteps, context, fps, padding_mask, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        fps: Any = None,
        padding_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x frames x height x width, *timesteps* B or B x frames, *context* B x T x text width.

        *padding_mask*, B x 1 x height x width, marks what does not belong to the picture (None: all does).
        """
        given = x.shape
        options = dict(kwargs.get("transformer_options") or {})
        x = comfy.ldm.common_dit.pad_to_patch_size(x, (self.patch_temporal, self.patch_spatial, self.patch_spatial))
        tokens = self.x_embedder(with_padding_mask(x, padding_mask) if self.concat_padding_mask else x)
        turns = self.pos_embedder(tokens, fps=fps, device=x.device)
        times = timesteps.unsqueeze(1) if timesteps.ndim == 1 else timesteps
        embedded, shared = self.t_embedder[1](self.t_embedder[0](times).to(tokens.dtype))
        embedded = self.t_embedding_norm(embedded)
        patches = options.get("patches", {}).get("post_input", ())
        if patches:
            options["model_patch_data"] = {}
        for patch in patches:
            tokens = patch({"img": tokens, "x": x, "transformer_options": options})["img"]
        compute = tokens.dtype
        if compute == torch.float16:  # the sums of the blocks outgrow half precision, their parts do not
            tokens = tokens.float()
        turns = turns.unsqueeze(1).unsqueeze(0)
        for number, block in enumerate(self.blocks):
            options["block_index"] = number
            tokens = block(tokens, embedded, context, rope_emb_L_1_1_D=turns, adaln_lora_B_T_3D=shared, transformer_options=options)
        cells = self.final_layer(tokens.to(compute), embedded, adaln_lora_B_T_3D=shared)
        return self.unpatchify(cells)[:, :, : given[-3], : given[-2], : given[-1]]

    def unpatchify(self, cells: torch.Tensor) -> torch.Tensor:
        """B x F x R x K x values of a cell to B x channels x frames x height x width."""
        return joined_cells(cells, self.patch_spatial, self.patch_temporal)
