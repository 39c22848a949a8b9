"""What LTX's networks of videos, and of videos with sound, share.

Shapes: B batch, N tokens of the video, T tokens of the text, C width of a token, M times (1, or one per token).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from comfy.dit.network import DiffusionTransformer
from comfy.ldm.lightricks.guides import GuideAttentionMask
from comfy.ldm.lightricks.layers import (
    ADALN_BASE_PARAMS_COUNT,
    ADALN_CROSS_ATTN_PARAMS_COUNT,
    AdaLayerNormSingle,
    NormSingleLinearTextProjection,
    PixArtAlphaTextProjection,
    compute_prompt_timestep,
)
from comfy.ldm.lightricks.rotations import Rotations, generate_freq_grid_np, generate_freq_grid_pytorch, rotations

CELL = (8, 32, 32)  # frames, rows and columns of pixels
LONGEST = (20, 2048, 2048)  # seconds, rows and columns that count as 1
FRAME_RATE = 25
Options = dict[str, Any]


class LTXBaseModel(DiffusionTransformer):
    """What the networks of videos and of videos with sound share. The numbers are those of the published ``transformer`` configuration.

    *rope_type*: pairs of values that are turned are neighbours ("interleaved") or of a head's halves ("split").
    *caption_proj_before_connector*: the text comes in the width of tokens. *cross_attention_adaln*: attention to text changes with time.
    """

    PATCH_BLOCKS = {"double_block": "transformer_blocks"}

    def __init__(
        self,
        in_channels: int = 128,
        cross_attention_dim: int = 2048,
        attention_head_dim: int = 64,
        num_attention_heads: int = 32,
        caption_channels: int = 4096,
        num_layers: int = 28,
        positional_embedding_theta: float = 10000.0,
        positional_embedding_max_pos: Sequence[int] = LONGEST,
        causal_temporal_positioning: bool = False,
        vae_scale_factors: Sequence[int] = CELL,
        use_middle_indices_grid: bool = False,
        timestep_scale_multiplier: float = 1000.0,
        caption_proj_before_connector: bool = False,
        cross_attention_adaln: bool = False,
        caption_projection_first_linear: bool = True,
        ff_bias: bool = True,
        use_prompt_adaln_single: bool = True,
        use_keyframes_abs_pos_embedding: bool = False,
        rope_type: str | None = None,
        frequencies_precision: str = "float32",
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.dtype, self.operations = dtype, operations
        self.in_channels = self.out_channels = in_channels
        self.cross_attention_dim, self.caption_channels, self.num_layers = cross_attention_dim, caption_channels, num_layers
        self.attention_head_dim, self.num_attention_heads = attention_head_dim, num_attention_heads
        self.inner_dim = num_attention_heads * attention_head_dim
        self.positional_embedding_theta = positional_embedding_theta
        self.positional_embedding_max_pos = list(positional_embedding_max_pos)
        self.causal_temporal_positioning, self.use_middle_indices_grid = causal_temporal_positioning, use_middle_indices_grid
        self.vae_scale_factors, self.timestep_scale_multiplier = tuple(vae_scale_factors), timestep_scale_multiplier
        self.caption_proj_before_connector, self.cross_attention_adaln = caption_proj_before_connector, cross_attention_adaln
        self.caption_projection_first_linear, self.ff_bias = caption_projection_first_linear, ff_bias
        self.use_prompt_adaln_single = cross_attention_adaln and use_prompt_adaln_single
        self.use_keyframes_abs_pos_embedding = use_keyframes_abs_pos_embedding
        self.rope_type, self.split_positional_embedding = rope_type, rope_type or "interleaved"
        self.freq_grid_generator = generate_freq_grid_np if frequencies_precision == "float64" else generate_freq_grid_pytorch
        self.ada_values = ADALN_CROSS_ATTN_PARAMS_COUNT if cross_attention_adaln else ADALN_BASE_PARAMS_COUNT
        self._kept: dict[str, Any] = {"dtype": dtype, "device": device}
        self._init_common_components(device, dtype)
        self._init_model_components(device, dtype, **kwargs)
        self._init_transformer_blocks(device, dtype, **kwargs)
        self._init_output_components(device, dtype)

    def _init_common_components(self, device: Any, dtype: Any) -> None:
        """What makes tokens, times and text of a width of the network's."""
        self.patchify_proj = self.operations.Linear(self.in_channels, self.inner_dim, **self._kept)
        marker = torch.empty(1, self.inner_dim, **self._kept) if self.use_keyframes_abs_pos_embedding else None
        self.keyframes_abs_pos_embedding = None if marker is None else torch.nn.Parameter(marker)
        self.adaln_single = self._ada(self.inner_dim, self.ada_values)
        self.prompt_adaln_single = self._ada(self.inner_dim, 2) if self.use_prompt_adaln_single else None
        self.caption_projection = self._text_projection(self.inner_dim)

    def _ada(self, width: int, values: int) -> AdaLayerNormSingle:
        return AdaLayerNormSingle(width, values, operations=self.operations, **self._kept)

    def _text_projection(self, width: int) -> torch.nn.Module:
        """The module between the text and tokens of *width*."""
        if not self.caption_proj_before_connector:
            return PixArtAlphaTextProjection(self.caption_channels, width, operations=self.operations, **self._kept)
        if self.caption_projection_first_linear:
            return NormSingleLinearTextProjection(self.caption_channels, width, operations=self.operations, **self._kept)
        return torch.nn.Identity()

    def _init_model_components(self, device: Any, dtype: Any, **kwargs: Any) -> None:
        """What only one of the networks has."""

    def _init_transformer_blocks(self, device: Any, dtype: Any, **kwargs: Any) -> None:
        """``transformer_blocks``."""
        raise NotImplementedError(f"{type(self).__name__} must define _init_transformer_blocks()")

    def _init_output_components(self, device: Any, dtype: Any) -> None:
        """What makes a latent of tokens, and ``patchifier``."""
        raise NotImplementedError(f"{type(self).__name__} must define _init_output_components()")

    def _process_input(self, x: Any, keyframe_idxs: Any, denoise_mask: Any, **kwargs: Any) -> tuple[Any, Any, Options]:
        """The tokens of *x*, their places, and what later steps have to know."""
        raise NotImplementedError(f"{type(self).__name__} must define _process_input()")

    def _process_transformer_blocks(self, x: Any, context: Any, attention_mask: Any, timestep: Any, pe: Any, **kwargs: Any) -> Any:
        """The tokens *x* after all blocks."""
        raise NotImplementedError(f"{type(self).__name__} must define _process_transformer_blocks()")

    def _process_output(self, x: Any, embedded_timestep: Any, keyframe_idxs: Any, **kwargs: Any) -> Any:
        """The latent of the tokens *x*."""
        raise NotImplementedError(f"{type(self).__name__} must define _process_output()")

    def _build_guide_self_attention_mask(self, x: Any, transformer_options: Options, merged_args: Options) -> GuideAttentionMask | None:
        """How much guides count; None for networks without them."""
        return None

    def _prepare_timestep(self, timestep: Any, batch_size: int, hidden_dtype: torch.dtype, **kwargs: Any) -> tuple[Any, Any, Any]:
        """What *timestep* (B, or B x N, noise levels) says to blocks (B x M x values), at the end (B x M x C), and of the text."""
        if kwargs.get("grid_mask") is not None:
            timestep = timestep[:, kwargs["grid_mask"]]
        scaled = timestep * self.timestep_scale_multiplier
        values, embedded = (
            part.view(batch_size, -1, part.shape[-1]) for part in self.adaln_single(scaled.flatten(), hidden_dtype=hidden_dtype)
        )
        return values, embedded, compute_prompt_timestep(self.prompt_adaln_single, scaled, batch_size, hidden_dtype)

    def _prepare_context(self, context: Any, batch_size: int, x: Any, attention_mask: Any = None) -> tuple[Any, Any]:
        """The text in the width of tokens *x*."""
        if not self.caption_proj_before_connector:
            context = self.caption_projection(context)
        return context.view(batch_size, -1, x.shape[-1]), attention_mask

    def _precompute_freqs_cis(
        self,
        indices_grid: torch.Tensor,
        dim: int,
        out_dtype: torch.dtype,
        max_pos: Sequence[float],
        heads: int,
        middles: bool | None = None,
    ) -> Rotations:
        """The rotations of tokens at *indices_grid*, see :func:`comfy.ldm.lightricks.rotations.rotations`."""
        frequencies = self.freq_grid_generator(self.positional_embedding_theta, indices_grid.shape[1], dim, indices_grid.device)
        middles = self.use_middle_indices_grid if middles is None else middles
        return rotations(indices_grid, frequencies, dim, heads, max_pos, out_dtype, middles, self.split_positional_embedding == "split")

    @staticmethod
    def in_seconds(pixel_coords: torch.Tensor, frame_rate: float) -> torch.Tensor:
        """Places in pixels with seconds in the place of frames: float32, a new tensor."""
        places = pixel_coords.to(torch.float32, copy=True)
        places[:, 0] *= 1.0 / frame_rate
        return places

    def _prepare_positional_embeddings(self, pixel_coords: Any, frame_rate: float, x_dtype: torch.dtype) -> Any:
        """The rotations of the video's tokens."""
        places = self.in_seconds(pixel_coords, frame_rate)
        return self._precompute_freqs_cis(places, self.inner_dim, x_dtype, self.positional_embedding_max_pos, self.num_attention_heads)

    def _prepare_attention_mask(self, attention_mask: torch.Tensor | None, x_dtype: torch.dtype) -> torch.Tensor | None:
        """A mask of whole numbers (1 looks) as one that is added to scores."""
        if attention_mask is None or attention_mask.is_floating_point():
            return attention_mask
        added = (attention_mask - 1).to(x_dtype) * torch.finfo(x_dtype).max
        return added.reshape(len(attention_mask), 1, -1, attention_mask.shape[-1])

    def forward(
        self,
        x: Any,
        timestep: Any,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        frame_rate: float = FRAME_RATE,
        transformer_options: Options | None = None,
        keyframe_idxs: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        path = (x, timestep, context, attention_mask, frame_rate, options, keyframe_idxs)
        return self.wrapped(*path, options=options, denoise_mask=denoise_mask, **kwargs)

    def _forward(
        self,
        x: Any,
        timestep: Any,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        frame_rate: float = FRAME_RATE,
        transformer_options: Options | None = None,
        keyframe_idxs: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """*x* B x channels x frames x height x width, *timestep* B or B x N (0 to 1), *context* B x T x width of the text encoder.

        *keyframe_idxs*: the places of guides (B x 3 x their tokens x 2), which stand at the end of *x*; *denoise_mask* tells of which
        tokens nothing is to be made (below 0). *kwargs*: ``guide_attention_entries``, ``generated_keyframes``.
        """
        options = {} if transformer_options is None else transformer_options
        first = x[0] if isinstance(x, list) else x
        batch, dtype = len(first), first.dtype
        known: Options = {**options, **kwargs}
        tokens, places, found = self._process_input(x, keyframe_idxs, denoise_mask, **known)
        known |= found
        times, embedded, known["prompt_timestep"] = self._prepare_timestep(timestep, batch, dtype, **known)
        context, attention_mask = self._prepare_context(context, batch, tokens, attention_mask)
        attention_mask = self._prepare_attention_mask(attention_mask, dtype)
        turns = self._prepare_positional_embeddings(places, frame_rate, dtype)
        mask = self._build_guide_self_attention_mask(tokens, options, known)
        path = (tokens, context, attention_mask, times, turns)
        tokens = self._process_transformer_blocks(*path, transformer_options=options, self_attention_mask=mask, **known)
        return self._process_output(tokens, embedded, keyframe_idxs, **known)
