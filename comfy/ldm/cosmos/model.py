"""The network of Cosmos 1 (Text2World and Video2World), with ComfyUI's arguments, attributes and weight names.

Shapes: B batch, F frames, R rows, K columns (of cells), T tokens of the text, C channels.
"""

from __future__ import annotations

import enum
from typing import Any

import torch

import comfy.ldm.common_dit
import comfy.ops
from comfy.dit.network import DiffusionTransformer
from comfy.ldm.cosmos.blocks import FinalLayer, GeneralDITTransformerBlock
from comfy.ldm.cosmos.embedders import PatchEmbed, TimestepEmbedding, Timesteps, joined_cells, with_padding_mask
from comfy.ldm.cosmos.layers import EPS
from comfy.ldm.cosmos.position_embedding import LearnablePosEmbAxis, VideoRopePosition3DEmb


class DataType(enum.Enum):
    """What a latent is of."""

    IMAGE = "image"
    VIDEO = "video"


class GeneralDIT(DiffusionTransformer):
    """The network. Arguments that are not used describe what was trained; positions turn by ``rope3d`` alone.

    As in ComfyUI, its blocks have no hooks of their own: ``transformer_options`` reach their attention, and wrappers the whole.
    """

    def __init__(
        self,
        *,
        patch_temporal: int,
        patch_spatial: int,
        max_frames: int,
        max_img_h: int,
        max_img_w: int,
        out_channels: int,
        in_channels: int,
        concat_padding_mask: bool = True,
        extra_per_block_abs_pos_emb: bool = False,
        rope_t_extrapolation_ratio: float = 1.0,
        rope_h_extrapolation_ratio: float = 1.0,
        rope_w_extrapolation_ratio: float = 1.0,
        crossattn_emb_channels: int = 1024,
        num_blocks: int = 10,
        block_config: str = "FA-CA-MLP",
        mlp_ratio: float = 4.0,
        model_channels: int = 768,
        num_heads: int = 16,
        adaln_lora_dim: int = 256,
        use_adaln_lora: bool = False,
        affline_emb_norm: bool = False,
        operations: Any = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        operations = operations or comfy.ops.disable_weight_init
        kept: dict[str, Any] = {"device": device, "dtype": dtype}
        made: dict[str, Any] = {**kept, "operations": operations}
        lora: dict[str, Any] = {"use_adaln_lora": use_adaln_lora, "adaln_lora_dim": adaln_lora_dim}
        in_blocks: dict[str, Any] = {"block_config": block_config, "mlp_ratio": mlp_ratio, **lora, **made}
        self.dtype, self.in_channels, self.out_channels = dtype, in_channels, out_channels
        self.patch_spatial, self.patch_temporal, self.concat_padding_mask = patch_spatial, patch_temporal, concat_padding_mask
        self.model_channels, self.num_heads, self.num_blocks = model_channels, num_heads, num_blocks
        self.extra_per_block_abs_pos_emb = extra_per_block_abs_pos_emb
        self.x_embedder = PatchEmbed(patch_spatial, patch_temporal, in_channels + int(concat_padding_mask), model_channels, **made)
        self.pos_embedder = VideoRopePosition3DEmb(
            head_dim=model_channels // num_heads,
            h_extrapolation_ratio=rope_h_extrapolation_ratio,
            w_extrapolation_ratio=rope_w_extrapolation_ratio,
            t_extrapolation_ratio=rope_t_extrapolation_ratio,
        )
        if extra_per_block_abs_pos_emb:
            most = {"len_h": max_img_h // patch_spatial, "len_w": max_img_w // patch_spatial, "len_t": max_frames // patch_temporal}
            self.extra_pos_embedder = LearnablePosEmbAxis(model_channels=model_channels, **most, **kept)
        self.t_embedder = torch.nn.ModuleList(
            [Timesteps(model_channels), TimestepEmbedding(model_channels, model_channels, use_adaln_lora, **made)]
        )
        widths = model_channels, crossattn_emb_channels
        self.blocks = torch.nn.ModuleDict(
            {f"block{number}": GeneralDITTransformerBlock(*widths, num_heads, **in_blocks) for number in range(num_blocks)}
        )
        self.affline_norm = operations.RMSNorm(model_channels, eps=EPS, **kept) if affline_emb_norm else torch.nn.Identity()
        self.final_layer = FinalLayer(model_channels, patch_spatial, patch_temporal, out_channels, **lora, **made)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        fps: Any = None,
        image_size: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        scalar_feature: torch.Tensor | None = None,
        data_type: DataType = DataType.VIDEO,
        latent_condition: torch.Tensor | None = None,
        latent_condition_sigma: torch.Tensor | None = None,
        condition_video_augment_sigma: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        told = (attention_mask, fps, image_size, padding_mask, scalar_feature, data_type)
        of_frames = (latent_condition, latent_condition_sigma, condition_video_augment_sigma)
        options = kwargs.get("transformer_options") or {}
        return self.wrapped(x, timesteps, context, *told, *of_frames, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        fps: Any = None,
        image_size: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        scalar_feature: torch.Tensor | None = None,
        data_type: DataType = DataType.VIDEO,
        latent_condition: torch.Tensor | None = None,
        latent_condition_sigma: torch.Tensor | None = None,
        condition_video_augment_sigma: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x frames x height x width, *timesteps* B, *context* B x T x text width, *fps* frames per second.

        *padding_mask*, B x 1 x height x width, marks what does not belong to the picture (None: all does). As in ComfyUI, masked text is
        attended to (its states are zeros), and the other arguments change nothing. Raises ``ValueError`` for a *scalar_feature*.
        """
        if scalar_feature is not None:
            raise ValueError("Cosmos models take no scalar_feature; leave it out")
        given = x.shape
        options = kwargs.get("transformer_options") or {}
        x = comfy.ldm.common_dit.pad_to_patch_size(x, (self.patch_temporal, self.patch_spatial, self.patch_spatial))
        tokens = self.x_embedder(with_padding_mask(x, padding_mask) if self.concat_padding_mask else x)
        turns = self.pos_embedder(tokens, fps=fps, device=x.device)
        learned = self.extra_pos_embedder(tokens, device=x.device, dtype=tokens.dtype) if self.extra_per_block_abs_pos_emb else None
        embedded, shared = self.t_embedder[1](self.t_embedder[0](timesteps.reshape(-1, 1)).to(x.dtype))
        embedded = self.affline_norm(embedded)
        for block in self.blocks.values():
            tokens = tokens if learned is None else tokens + learned
            tokens = block(tokens, embedded, context, rope_emb_L_1_1_D=turns, adaln_lora=shared, transformer_options=options)
        cells = self.final_layer(tokens, embedded, shared)
        return joined_cells(cells, self.patch_spatial, self.patch_temporal)[:, :, : given[-3], : given[-2], : given[-1]]
