"""PixelDiT's network in ComfyUI's tree, published weight names and hooks: it makes pixels, without an autoencoder.

Patches and text go through joint blocks; what these make of a patch then says how its pixels are changed.
Shapes: B batch, I patches of the picture, T tokens of text, C width of a token.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.common_dit
import comfy.ops
from comfy.dit.network import DiffusionTransformer
from comfy.ldm.flux.math import apply_rope, rope
from comfy.ldm.hidream.model import FeedForwardSwiGLU
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.mmdit import TimestepEmbedder
from comfy.ldm.pixeldit.modules import EPS, FinalLayer, PatchTokenEmbedder, PiTBlock, PixelTokenEmbedder, precompute_freqs_cis_2d

Options = dict[str, Any]
TIME_PERIOD = 10
PREFIXES = ("core.", "net.")  # before the names in files


class MMDiTJointAttention(torch.nn.Module):
    """Attention of the text's tokens and the picture's to all, with layers of their own for both."""

    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv_x, self.qkv_y = (operations.Linear(dim, 3 * dim, bias=qkv_bias, **kept) for _ in range(2))
        self.q_norm_x, self.k_norm_x, self.q_norm_y, self.k_norm_y = (operations.RMSNorm(self.head_dim, eps=EPS, **kept) for _ in range(4))
        self.proj_x, self.proj_y = (operations.Linear(dim, dim, **kept) for _ in range(2))

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, pos_img: torch.Tensor, pos_txt: torch.Tensor, transformer_options: Options | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the picture's tokens *x* (B x I x C) and the text's *y* (B x T x C) attend to. *pos_img*, *pos_txt*: their rotations."""
        heads = [
            layer(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            for layer, tokens in ((self.qkv_y, y), (self.qkv_x, x))
        ]
        (qy, ky, vy), (qx, kx, vx) = heads
        qy, ky = apply_rope(self.q_norm_y(qy), self.k_norm_y(ky), pos_txt[None, None])
        qx, kx = apply_rope(self.q_norm_x(qx), self.k_norm_x(kx), pos_img[None, None])
        joined = (torch.cat(pair, dim=2) for pair in ((qy, qx), (ky, kx), (vy, vx)))
        mixed = optimized_attention(*joined, self.num_heads, skip_reshape=True, transformer_options=transformer_options or {})
        words = y.shape[1]
        return self.proj_x(mixed[:, words:]), self.proj_y(mixed[:, :words])


class MMDiTBlockT2I(torch.nn.Module):
    """Joint attention and a wider layer for each of picture and text, shifted, scaled and gated by the time."""

    def __init__(
        self, hidden_size: int, groups: int, mlp_ratio: float = 4.0, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        self.norm_x1, self.norm_y1, self.norm_x2, self.norm_y2 = (operations.RMSNorm(hidden_size, eps=EPS, **kept) for _ in range(4))
        self.attn = MMDiTJointAttention(hidden_size, groups, operations=operations, **kept)
        self.mlp_x, self.mlp_y = (
            FeedForwardSwiGLU(hidden_size, int(mlp_ratio * hidden_size), 1, operations=operations, **kept) for _ in range(2)
        )
        self.adaLN_modulation_img, self.adaLN_modulation_txt = (
            torch.nn.Sequential(operations.Linear(hidden_size, 6 * hidden_size, **kept)) for _ in range(2)
        )

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        c: torch.Tensor,
        pos_img: torch.Tensor,
        pos_txt: torch.Tensor,
        transformer_options: Options | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both after the block; *c*: B x 1 x C for the time."""
        shift_x, scale_x, gate_x, wide_shift_x, wide_scale_x, wide_gate_x = self.adaLN_modulation_img(c).chunk(6, dim=-1)
        shift_y, scale_y, gate_y, wide_shift_y, wide_scale_y, wide_gate_y = self.adaLN_modulation_txt(c).chunk(6, dim=-1)
        normal_x = torch.addcmul(shift_x, self.norm_x1(x), 1 + scale_x)
        normal_y = torch.addcmul(shift_y, self.norm_y1(y), 1 + scale_y)
        mixed_x, mixed_y = self.attn(normal_x, normal_y, pos_img, pos_txt, transformer_options)
        x, y = torch.addcmul(x, gate_x, mixed_x), torch.addcmul(y, gate_y, mixed_y)
        x = torch.addcmul(x, wide_gate_x, self.mlp_x(torch.addcmul(wide_shift_x, self.norm_x2(x), 1 + wide_scale_x)))
        y = torch.addcmul(y, wide_gate_y, self.mlp_y(torch.addcmul(wide_shift_y, self.norm_y2(y), 1 + wide_scale_y)))
        return x, y


class PixDiT_T2I(DiffusionTransformer):  # noqa: N801 - ComfyUI's name
    """The network. ``rope_options`` of ``transformer_options`` move and stretch the places of patches."""

    def __init__(
        self,
        in_channels: int = 3,
        num_groups: int = 24,
        hidden_size: int = 1536,
        pixel_hidden_size: int = 16,
        pixel_attn_hidden_size: int = 1152,
        pixel_num_groups: int = 16,
        patch_depth: int = 14,
        pixel_depth: int = 2,
        patch_size: int = 16,
        txt_embed_dim: int = 2304,
        txt_max_length: int = 300,
        text_rope_theta: float = 10000.0,
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
        pixel_mlp_chunks: int = 2,
    ) -> None:
        super().__init__()
        placed: Options = {"dtype": dtype, "device": device}
        kept: Options = {**placed, "operations": operations}
        self.dtype, self.in_channels, self.out_channels, self.hidden_size = dtype, in_channels, in_channels, hidden_size
        self.patch_size, self.txt_embed_dim, self.txt_max_length = patch_size, txt_embed_dim, txt_max_length
        self.head_dim, self.text_rope_theta = hidden_size // num_groups, text_rope_theta
        self.pixel_embedder = PixelTokenEmbedder(in_channels, pixel_hidden_size, **kept)
        self.s_embedder = PatchTokenEmbedder(in_channels * patch_size**2, hidden_size, **kept)
        self.t_embedder = TimestepEmbedder(hidden_size, max_period=TIME_PERIOD, **kept)
        self.y_embedder = PatchTokenEmbedder(txt_embed_dim, hidden_size, use_norm=True, **kept)
        self.y_pos_embedding = torch.nn.Parameter(torch.empty(1, txt_max_length, hidden_size, **placed))
        self._modules["patch_blocks"] = torch.nn.ModuleList(MMDiTBlockT2I(hidden_size, num_groups, **kept) for _ in range(patch_depth))
        pixels: Options = {"attn_hidden_size": pixel_attn_hidden_size, "attn_num_heads": pixel_num_groups, "mlp_chunks": pixel_mlp_chunks}
        self.pixel_blocks = torch.nn.ModuleList(
            PiTBlock(pixel_hidden_size, hidden_size, patch_size, num_groups, **pixels, **kept) for _ in range(pixel_depth)
        )
        self.final_layer = FinalLayer(pixel_hidden_size, in_channels, **kept)

    @property
    def patch_blocks(self) -> Any:
        """The joint blocks, as files name them; none of them can be replaced, which the base class's method of this name would tell."""
        return self._modules["patch_blocks"]

    @staticmethod
    def parameter_name(key: str) -> str:
        """Files put "core." or "net." before all names."""
        return next((key.removeprefix(prefix) for prefix in PREFIXES if key.startswith(prefix)), key)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for pictures *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, attention_mask, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x colours x height x width (-1 … 1), *timesteps* B (0 to 1000), *context* B x T x width of the text, of which the first 300
        tokens count. *attention_mask* is not used, as in ComfyUI.

        Raises ``ValueError`` for a text of another width.
        """
        options = {} if transformer_options is None else transformer_options
        if context.shape[-1] != self.txt_embed_dim:
            raise ValueError(
                f"PixelDiT takes texts of {self.txt_embed_dim} values per token, but this one has {context.shape[-1]}; "
                "load Gemma 2 2B with CLIPLoader's type pixeldit"
            )
        side = self.patch_size
        picture = comfy.ldm.common_dit.pad_to_patch_size(x, (side, side))
        height, width = picture.shape[2:]
        moved = options.get("rope_options") or {}
        turns = precompute_freqs_cis_2d(self.head_dim, height // side, width // side, device=x.device, **moved)
        time = self.t_embedder(timesteps, x.dtype)[:, None]
        text = self.y_embedder(context[:, : self.txt_max_length])
        text = text + comfy.ops.cast_to_input(self.y_pos_embedding, text, copy=False)[:, : text.shape[1]]
        told = rope(torch.arange(text.shape[1], dtype=torch.float32, device=x.device)[None], self.head_dim, self.text_rope_theta)[0]
        patches = self.s_embedder(F.unfold(picture, side, stride=side).transpose(1, 2))
        for number, block in enumerate(self.patch_blocks):
            patches, text = block(self._before_block(patches, number, **kwargs), text, F.silu(time), turns, told, options)
        said = self._before_pixels(F.silu(time + patches), **kwargs).flatten(0, 1)
        pixels = self.pixel_embedder(picture, side)
        for block in self.pixel_blocks:
            pixels = block(pixels, said, height, width, side, options)
        colours = self.final_layer(pixels).unflatten(0, (len(x), -1))
        made = F.fold(colours.transpose(2, 3).flatten(2).transpose(1, 2), (height, width), side, stride=side)
        return made[..., : x.shape[2], : x.shape[3]]

    def _before_block(self, patches: torch.Tensor, number: int, **kwargs: Any) -> torch.Tensor:
        """*patches* (B x I x C) as the joint block *number* gets them; *kwargs* are further arguments of the network."""
        return patches

    def _before_pixels(self, said: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """What pixels are told of their patches (B x I x C)."""
        return said
