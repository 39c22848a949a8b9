"""LTX's network of videos (LTX-Video 0.9) in ComfyUI's tree, published weight names and hooks.

Shapes: B batch, N tokens of the video, T tokens of the text, C width of a token, M times (1, or one per token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from comfy.dit.network import run_block
from comfy.ldm.lightricks.base_model import LTXBaseModel, Options
from comfy.ldm.lightricks.guides import GuideAttentionMask, guide_mask, left_of_guides
from comfy.ldm.lightricks.layers import (
    ADALN_BASE_PARAMS_COUNT,
    ADALN_CROSS_ATTN_PARAMS_COUNT,
    AdaLayerNormSingle,
    BasicTransformerBlock,
    CrossAttention,
    FeedForward,
    GELU_approx,
    NormSingleLinearTextProjection,
    PixArtAlphaCombinedTimestepSizeEmbeddings,
    PixArtAlphaTextProjection,
    TimestepEmbedding,
    apply_cross_attention_adaln,
    compute_prompt_timestep,
)
from comfy.ldm.lightricks.rotations import apply_rotary_emb, generate_freq_grid_np, generate_freq_grid_pytorch
from comfy.ldm.lightricks.symmetric_patchifier import SymmetricPatchifier, latent_to_pixel_coords
from comfy.placeholders import placeholders

__all__ = [
    "ADALN_BASE_PARAMS_COUNT",
    "ADALN_CROSS_ATTN_PARAMS_COUNT",
    "AdaLayerNormSingle",
    "BasicTransformerBlock",
    "CrossAttention",
    "FeedForward",
    "GELU_approx",
    "GuideAttentionMask",
    "LTXBaseModel",
    "LTXVModel",
    "NormSingleLinearTextProjection",
    "PixArtAlphaCombinedTimestepSizeEmbeddings",
    "PixArtAlphaTextProjection",
    "TimestepEmbedding",
    "apply_cross_attention_adaln",
    "apply_rotary_emb",
    "compute_prompt_timestep",
    "generate_freq_grid_np",
    "generate_freq_grid_pytorch",
]

__getattr__, __dir__ = placeholders(
    __name__,
    "LTX-Video models of other kinds",
    "LTXRopeType:object LTXFrequenciesPrecision:object get_timestep_embedding() Timesteps apply_rotary_emb_qk() "
    "_attention_with_guide_mask() get_fractional_positions() generate_freqs() freqs_cis_matrix() precompute_freqs_cis()",
)


class LTXVModel(LTXBaseModel):
    """The network of videos. ``patches_replace["dit"]`` replaces ``("double_block", number)``."""

    def _init_transformer_blocks(self, device: Any, dtype: Any, **kwargs: Any) -> None:
        sizes = (self.inner_dim, self.num_attention_heads, self.attention_head_dim)
        settings: dict[str, Any] = {
            "context_dim": self.cross_attention_dim,
            "cross_attention_adaln": self.cross_attention_adaln,
            "ff_bias": self.ff_bias,
            "operations": self.operations,
        }
        settings |= self._kept
        blocks = (BasicTransformerBlock(*sizes, **settings) for _ in range(self.num_layers))
        self.transformer_blocks = torch.nn.ModuleList(blocks)

    def _init_output_components(self, device: Any, dtype: Any) -> None:
        self.scale_shift_table = torch.nn.Parameter(torch.empty(2, self.inner_dim, **self._kept))
        self.norm_out = self.operations.LayerNorm(self.inner_dim, elementwise_affine=False, eps=1e-6, **self._kept)
        self.proj_out = self.operations.Linear(self.inner_dim, self.out_channels, **self._kept)
        self.patchifier = SymmetricPatchifier(1, start_end=True)

    def tokens_per_latent_frame(self, orig_shape: Sequence[int]) -> int:
        """Tokens of one frame of a latent of *orig_shape*."""
        _, rows, columns = self.patchifier.patch_size
        return (orig_shape[3] // rows) * (orig_shape[4] // columns)

    def _process_input(self, x: Any, keyframe_idxs: Any, denoise_mask: Any, **kwargs: Any) -> tuple[Any, Any, Options]:
        found: Options = {"orig_shape": list(x.shape)}
        tokens, cells = self.patchifier.patchify(x)
        places = latent_to_pixel_coords(cells, self.vae_scale_factors, self.causal_temporal_positioning)
        if keyframe_idxs is not None and keyframe_idxs.shape[2] > 0:
            tokens, places, guides = self._with_guides(tokens, places, keyframe_idxs, denoise_mask, **kwargs, **found)
            found |= guides
        tokens = self.patchify_proj(tokens)
        if self.keyframes_abs_pos_embedding is not None:
            marks = self.keyframes_abs_pos_mask(places, generated_keyframes=kwargs.get("generated_keyframes"), **found)
            tokens = tokens + marks.unsqueeze(-1).to(tokens) * self.keyframes_abs_pos_embedding.to(tokens)
        return tokens, places, found

    def _with_guides(
        self, tokens: torch.Tensor, places: torch.Tensor, guide_places: torch.Tensor, denoise_mask: Any, **known: Any
    ) -> tuple[torch.Tensor, torch.Tensor, Options]:
        """*tokens* and *places* of a video with guides at its end, which get their places; cells that guides leave empty are left out."""
        each = self.tokens_per_latent_frame(known["orig_shape"])
        count = guide_places.shape[2]
        if count % each:
            raise ValueError(
                f"the guides have {count} tokens, but a frame of this latent has {each}: they were added to a latent of other sides. "
                "Crop the guides (LTXVCropGuides) before the latent is enlarged, and add them again after it"
            )
        kept = ~(self.patchifier.patchify(denoise_mask)[0] < 0).any(dim=-1)[0]
        places, guides = places[:, :, kept], kept[-count:]
        guide_places = guide_places[..., guides, :]
        left = guide_places.shape[2]
        if left:
            places[:, :, -left:] = guide_places.to(places)
        found: Options = {"orig_patchified_shape": list(tokens.shape), "grid_mask": kept, "num_guide_tokens": left}
        entries = known.get("guide_attention_entries")
        if entries:
            found["resolved_guide_entries"] = left_of_guides(entries, guides)
        return tokens[:, kept], places, found

    def keyframes_abs_pos_mask(
        self,
        pixel_coords: torch.Tensor,
        orig_shape: Sequence[int],
        grid_mask: torch.Tensor | None = None,
        num_guide_tokens: int = 0,
        generated_keyframes: Mapping[str, int] | None = None,
        **ignored: Any,
    ) -> torch.Tensor:
        """Which tokens stand for a single frame each (B x N): those at time 0 that are no guides, and *generated_keyframes*."""
        begins = pixel_coords[:, 0, :, 0] if pixel_coords.ndim == 4 else pixel_coords[:, 0]
        marks = begins == 0
        if num_guide_tokens:
            marks[:, -num_guide_tokens:] = False
        if generated_keyframes is None:
            return marks
        each = self.tokens_per_latent_frame(orig_shape)
        if generated_keyframes["tokens_per_frame"] != each:
            raise ValueError(
                f"the keyframes to generate have {generated_keyframes['tokens_per_frame']} tokens each, but a frame of this latent has "
                f"{each}. Separate them from the latent before it is enlarged"
            )
        slots = torch.zeros(orig_shape[2], each, dtype=torch.bool, device=marks.device)
        first = generated_keyframes["first_latent_frame"]
        slots[first : first + generated_keyframes["num_keyframes"]] = True
        slots = slots.flatten()
        return marks | (slots if grid_mask is None else slots[grid_mask])

    def _build_guide_self_attention_mask(self, x: Any, transformer_options: Options, merged_args: Options) -> GuideAttentionMask | None:
        tokens = x[0] if isinstance(x, list) else x
        entries, count = merged_args.get("resolved_guide_entries"), merged_args.get("num_guide_tokens", 0)
        return guide_mask(entries, tokens.shape[1], count, tokens.device, tokens.dtype)

    def _process_transformer_blocks(self, x: Any, context: Any, attention_mask: Any, timestep: Any, pe: Any, **kwargs: Any) -> Any:
        options = kwargs["transformer_options"]
        passed: Options = {"attention_mask": attention_mask, "pe": pe, "transformer_options": options}
        passed |= {name: kwargs.get(name) for name in ("self_attention_mask", "prompt_timestep")}
        for number, block in enumerate(self.transformer_blocks):

            def original(given: Mapping[str, Any], block: Any = block) -> dict[str, Any]:
                own = {name: given.get(name) for name in passed}
                return {"img": block(given["img"], context=given["txt"], timestep=given["vec"], **own)}

            given = {"img": x, "txt": context, "vec": timestep, **passed}
            x = run_block(options, ("double_block", number), given, original)["img"]
        return x

    def _process_output(self, x: Any, embedded_timestep: Any, keyframe_idxs: Any, **kwargs: Any) -> Any:
        table = self.scale_shift_table.to(x)
        shift, scale = (table + embedded_timestep[:, :, None]).unbind(dim=2)
        tokens = self.proj_out(torch.addcmul(shift, self.norm_out(x), 1 + scale))
        if kwargs.get("grid_mask") is not None:
            whole = tokens.new_zeros(kwargs["orig_patchified_shape"])
            whole[:, kwargs["grid_mask"]] = tokens
            tokens = whole
        _, channels, frames, height, width = kwargs["orig_shape"]
        return self.patchifier.unpatchify(tokens, height, width, frames, channels)
