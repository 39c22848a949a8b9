"""OmniGen2's network in ComfyUI's tree and published weight names.

Shapes: B batch, T tokens of text, R tokens of reference pictures, I tokens of the picture, N of all, C width of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import comfy.ldm.common_dit
import comfy.ops
from comfy.dit.network import DiffusionTransformer
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.omnigen.layers import (
    EPS,
    TIME_WIDTH,
    Attention,
    Lumina2CombinedTimestepCaptionEmbedding,
    LuminaFeedForward,
    LuminaLayerNormContinuous,
    LuminaRMSNormZero,
    OmniGen2TransformerBlock,
    Options,
    TimestepEmbedding,
    apply_rotary_emb,
)

__all__ = [
    "Attention",
    "Lumina2CombinedTimestepCaptionEmbedding",
    "LuminaFeedForward",
    "LuminaLayerNormContinuous",
    "LuminaRMSNormZero",
    "OmniGen2RotaryPosEmbed",
    "OmniGen2Transformer2DModel",
    "OmniGen2TransformerBlock",
    "TimestepEmbedding",
    "apply_rotary_emb",
]

THETA = 10000
PICTURES = 5  # to look at, at most


class OmniGen2RotaryPosEmbed(torch.nn.Module):
    """Rotations for text and pictures."""

    def __init__(self, theta: int, axes_dim: Sequence[int], patch_size: int = 2) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.rope_embedder = EmbedND(dim=sum(axes_dim), theta=theta, axes_dim=axes_dim)

    def forward(self, text: int, sizes: Sequence[tuple[int, int]], device: torch.device) -> torch.Tensor:
        """Of *text* tokens, then of pictures of *sizes* (rows and columns of patches): 1 x 1 x N x D/2 x 2 x 2.

        Text counts up on all three axes; a picture is one place on the first, beyond which it goes on by its longer side.
        """
        parts, place = [torch.arange(text, device=device)[:, None].expand(-1, 3)], text
        for rows, columns in sizes:
            axes = torch.tensor([place], device=device), torch.arange(rows, device=device), torch.arange(columns, device=device)
            parts.append(torch.cartesian_prod(*axes))
            place += max(rows, columns)
        rotations: torch.Tensor = self.rope_embedder(torch.cat(parts)[None])
        return rotations


@dataclass(frozen=True, slots=True)
class Seen:
    """What the layers after the refiners get: text (B x T x C), references and picture (B x (R + I) x C), their rotations and the time."""

    text: torch.Tensor
    pictures: torch.Tensor
    rotations: torch.Tensor
    time: torch.Tensor


class OmniGen2Transformer2DModel(DiffusionTransformer):
    """The network. Pictures to look at stand between the text and the picture that is made."""

    LAYERS = "layers"

    def __init__(
        self,
        *,
        text_feat_dim: int = 1024,
        hidden_size: int = 2304,
        num_attention_heads: int = 24,
        num_kv_heads: int = 8,
        axes_dim_rope: Sequence[int] = (32, 32, 32),
        num_refiner_layers: int = 2,
        num_layers: int = 26,
        in_channels: int = 16,
        patch_size: int = 2,
        out_channels: int | None = None,
        timestep_scale: float = 1.0,
        multiple_of: int = 256,
        norm_eps: float = EPS,
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        placed: Options = {"dtype": dtype, "device": device}
        kept: Options = {**placed, "operations": operations}
        width, values = hidden_size, patch_size**2 * in_channels
        self.patch_size, self.out_channels, self.hidden_size, self.dtype = patch_size, out_channels or in_channels, width, dtype
        self._sizes = width, num_attention_heads, num_kv_heads, multiple_of, norm_eps
        self.rope_embedder = OmniGen2RotaryPosEmbed(THETA, axes_dim_rope, patch_size)
        self.x_embedder, self.ref_image_patch_embedder = (operations.Linear(values, width, **placed) for _ in range(2))
        self.time_caption_embed = Lumina2CombinedTimestepCaptionEmbedding(width, text_feat_dim, norm_eps, timestep_scale, **kept)
        self.noise_refiner, self.ref_image_refiner = (self._blocks(num_refiner_layers, kept) for _ in range(2))
        self.context_refiner = self._blocks(num_refiner_layers, kept, modulation=False)
        setattr(self, self.LAYERS, self._blocks(num_layers, kept))
        self.norm_out = LuminaLayerNormContinuous(width, min(width, TIME_WIDTH), patch_size**2 * self.out_channels, **kept)
        self.image_index_embedding = torch.nn.Parameter(torch.empty(PICTURES, width, **placed))

    def _blocks(self, count: int, kept: Options, modulation: bool = True) -> torch.nn.ModuleList:
        return torch.nn.ModuleList(OmniGen2TransformerBlock(*self._sizes, modulation, **kept) for _ in range(count))

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        num_tokens: int | None = None,
        ref_latents: Sequence[torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, num_tokens, ref_latents, attention_mask, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        num_tokens: int | None = None,
        ref_latents: Sequence[torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x height x width, *timesteps* B (0 to 1), *context* B x T x width of the text encoder.

        *num_tokens* says how many of the text's are no padding, which its length says here. *ref_latents*: pictures to look at, each like
        *x*. *attention_mask* (B x T) is 0 for what of the text others of it do not look at. Raises ``ValueError`` for more than five
        pictures.
        """
        options = {} if transformer_options is None else transformer_options
        references = list(ref_latents or ())
        if len(references) > PICTURES:
            raise ValueError(f"this model looks at {PICTURES} pictures at most, but {len(references)} are given")
        tokens, size = self._patches(x)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None]
        seen = self._refined(tokens, size, 1.0 - timesteps, context, references, mask, options)
        last = self.norm_out(self._run_layers(seen, options), seen.time)
        return -self._as_latent(last[:, -tokens.shape[1] :], size)[..., : x.shape[-2], : x.shape[-1]]

    def _refined(
        self,
        tokens: torch.Tensor,
        size: tuple[int, int],
        times: torch.Tensor,
        context: torch.Tensor,
        references: Sequence[torch.Tensor],
        mask: torch.Tensor | None,
        options: Options,
    ) -> Seen:
        """Text, references and picture (*tokens* of *size*), after what each goes through alone."""
        time, text = self.time_caption_embed(times, context, tokens.dtype)
        shown, words = [self._patches(latent) for latent in references], text.shape[1]
        rotations = self.rope_embedder(words, [*(own for _, own in shown), size], tokens.device)
        for layer in self.context_refiner:
            text = layer(text, mask, rotations[:, :, :words], transformer_options=options)
        image = self.x_embedder(tokens)
        for layer in self.noise_refiner:
            image = layer(image, None, rotations[:, :, -image.shape[1] :], time, options)
        if shown:
            numbers = comfy.ops.cast_to_input(self.image_index_embedding, image, copy=False)
            looked = torch.cat([self.ref_image_patch_embedder(own) + number for (own, _), number in zip(shown, numbers)], dim=1)
            for layer in self.ref_image_refiner:
                looked = layer(looked, None, rotations[:, :, words : words + looked.shape[1]], time, options)
            image = torch.cat((looked, image), dim=1)
        return Seen(text, image, rotations, time)

    def _run_layers(self, seen: Seen, options: Options) -> torch.Tensor:
        """All tokens after the last layer: B x N x C."""
        joined = torch.cat((seen.text, seen.pictures), dim=1)
        for layer in getattr(self, self.LAYERS):
            joined = layer(joined, None, seen.rotations, seen.time, options)
        return joined

    def _patches(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """(B x I x values, place in the patch before channels; rows and columns of patches) of *x* (B x channels x height x width)."""
        side = self.patch_size
        padded = comfy.ldm.common_dit.pad_to_patch_size(x, (side, side))
        cells = padded.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 3, 5, 1)
        return cells.flatten(3).flatten(1, 2), (cells.shape[1], cells.shape[2])

    def _as_latent(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """The latent of B x I x values, in *size* rows and columns."""
        side = self.patch_size
        cells = tokens.unflatten(1, size).unflatten(3, (side, side, -1))
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
