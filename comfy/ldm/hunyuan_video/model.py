"""HunyuanVideo 1.5's network in ComfyUI's tree and hooks.

Shapes: B batch, N tokens of the video, T tokens of text, C width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.flux.layers import DoubleStreamBlock, EmbedND, LastLayer, MLPEmbedder, timestep_embedding
from comfy.ldm.hunyuan_video.layers import (
    TIME_CHANNELS,
    ByT5Mapper,
    IndividualTokenRefiner,
    SelfAttentionRef,
    TokenRefiner,
    TokenRefinerBlock,
    VideoPatches,
)
from comfy.ldm.hunyuan_video.names import parameter_name
from comfy.ldm.wan.layers import MLPProj

__all__ = [
    "ByT5Mapper",
    "HunyuanVideo",
    "HunyuanVideoParams",
    "IndividualTokenRefiner",
    "SelfAttentionRef",
    "TokenRefiner",
    "TokenRefinerBlock",
]

REFINER_BLOCKS = 2
BYT5_WIDTH, BYT5_INNER = 1472, 2048
TEXT, WRITTEN, SEEN = range(3)  # kinds of conditioning, as the network numbers them


@dataclass(kw_only=True)
class HunyuanVideoParams:
    """The sizes of a network."""

    axes_dim: list[int]
    byt5: bool
    context_in_dim: int
    depth: int
    depth_single_blocks: int
    guidance_embed: bool
    hidden_size: int
    in_channels: int
    meanflow: bool
    meanflow_sum: bool
    mlp_ratio: float
    num_heads: int
    out_channels: int
    patch_size: list[int]
    qkv_bias: bool
    theta: int
    use_cond_type_embedding: bool
    vec_in_dim: int | None
    vision_in_dim: int | None


class HunyuanVideo(DiffusionTransformer):
    """The network. ``patches_replace["dit"]`` of ``transformer_options`` replaces ``("double_block", number)``.

    *kwargs* are those of :class:`HunyuanVideoParams`. Raises ``ValueError`` for those of HunyuanVideo 1, with a vector of pooled text or
    blocks of a single stream.
    """

    PATCH_BLOCKS = {"double_block": "double_blocks"}

    def __init__(
        self,
        image_model: str | None = None,
        final_layer: bool = True,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.params = params = HunyuanVideoParams(**kwargs)
        if params.vec_in_dim is not None or params.depth_single_blocks:
            raise ValueError("networks with a vector of pooled text or blocks of a single stream are not supported: HunyuanVideo 1's")
        made: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.dtype, self.patch_size = dtype, list(params.patch_size)
        self.in_channels, self.out_channels = params.in_channels, params.out_channels
        self.hidden_size, self.num_heads = width, heads = params.hidden_size, params.num_heads
        self.pe_embedder = EmbedND(width // heads, params.theta, params.axes_dim)
        self.img_in = VideoPatches(self.patch_size, params.in_channels, width, **made)
        self.time_in = MLPEmbedder(TIME_CHANNELS, width, **made)
        self.guidance_in: Any = MLPEmbedder(TIME_CHANNELS, width, **made) if params.guidance_embed else torch.nn.Identity()
        self.txt_in = TokenRefiner(params.context_in_dim, width, heads, REFINER_BLOCKS, **made)
        self.double_blocks = torch.nn.ModuleList(
            DoubleStreamBlock(width, heads, params.mlp_ratio, params.qkv_bias, **made) for _ in range(params.depth)
        )
        self.byt5_in = ByT5Mapper(BYT5_WIDTH, BYT5_INNER, BYT5_INNER, width, **made) if params.byt5 else None
        self.time_r_in = MLPEmbedder(TIME_CHANNELS, width, **made) if params.meanflow else None
        if final_layer:
            self.final_layer = LastLayer(width, self.patch_size[-1], params.out_channels, **made)
        self.vision_in = None if params.vision_in_dim is None else MLPProj(params.vision_in_dim, width, operation_settings=made)
        self.cond_type_embedding = operations.Embedding(3, width, dtype=dtype, device=device) if params.use_cond_type_embedding else None

    @staticmethod
    def parameter_name(key: str) -> str:
        """The parameter that the tensor *key* of a file is for."""
        return parameter_name(key)

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        y: torch.Tensor | None = None,
        txt_byt5: torch.Tensor | None = None,
        clip_fea: torch.Tensor | None = None,
        guidance: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        disable_time_r: bool = False,
        control: Mapping[str, Sequence[Any]] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        arguments = (x, timestep, context, y, txt_byt5, clip_fea, guidance, attention_mask, disable_time_r, control, options)
        return self.wrapped(*arguments, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        y: torch.Tensor | None = None,
        txt_byt5: torch.Tensor | None = None,
        clip_fea: torch.Tensor | None = None,
        guidance: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        disable_time_r: bool = False,
        control: Mapping[str, Sequence[Any]] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x frames x height x width, *timestep* B (0 to 1000), *context* B x T x width of the text encoder.

        *txt_byt5*: texts to be written (B x tokens x 1472); *clip_fea*: what an image encoder saw; *attention_mask*: B x T, 0 where there
        is no text (integers) or what is added to scores; *control*: residuals for the first blocks under ``input``.
        """
        options = dict(transformer_options or {})
        image = self.img_in(x)
        vec = self._time(timestep, image, options, disable_time_r)
        if self.params.guidance_embed and guidance is not None:
            vec = vec + self.guidance_in(timestep_embedding(guidance, TIME_CHANNELS).to(image.dtype))
        mask = attention_mask
        if mask is not None and not torch.is_floating_point(mask):
            mask = (mask - 1).to(image.dtype) * torch.finfo(image.dtype).max
        text = self._text(context, timestep, mask, txt_byt5, clip_fea, options)
        scores = None
        if mask is not None:
            scores = image.new_zeros(len(mask), 1, text.shape[1] + image.shape[1])
            scores[:, 0, text.shape[1] - mask.shape[1] : text.shape[1]] = mask
        rotations = self.pe_embedder(torch.cat((x.new_zeros(len(x), text.shape[1], 3), self.img_ids(x)), dim=1))
        state = {"vec": vec, "pe": rotations, "attention_mask": scores, "modulation_dims_img": None, "modulation_dims_txt": None}
        image = self._run_blocks(image, text, state, options, control)
        return self._as_latent(self.final_layer(image, vec), x.shape)

    def _time(self, timestep: torch.Tensor, image: torch.Tensor, options: Mapping[str, Any], disable_time_r: bool) -> torch.Tensor:
        """The embedded time; of networks that go from one time to another, with that of the next step where the sampler tells it."""
        vec = self.time_in(timestep_embedding(timestep, TIME_CHANNELS, time_factor=1.0).to(image.dtype))
        if self.time_r_in is None or disable_time_r or "sample_sigmas" not in options:
            return vec
        places = torch.where(options["sigmas"][0] == options["sample_sigmas"])[0]
        if not len(places):
            return vec
        following = options["sample_sigmas"][places[0] + 1].reshape(1).to(timestep)
        next_vec = self.time_r_in(timestep_embedding(following, TIME_CHANNELS, time_factor=1000.0).to(image.dtype))
        return vec + next_vec if self.params.meanflow_sum else (vec + next_vec) / 2

    def _text(
        self,
        context: torch.Tensor,
        timestep: torch.Tensor,
        mask: torch.Tensor | None,
        written: torch.Tensor | None,
        seen: torch.Tensor | None,
        options: dict[str, Any],
    ) -> torch.Tensor:
        """What was seen, what is to be written, then the text, as tokens that know which of these they are."""
        parts = [self._of_kind(TEXT, self.txt_in(context, timestep, mask, options))]
        if self.byt5_in is not None and written is not None:
            parts.insert(0, self._of_kind(WRITTEN, self.byt5_in(written)))
        if self.vision_in is not None and seen is not None:
            parts.insert(0, self._of_kind(SEEN, self.vision_in(seen)).to(parts[0].dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _of_kind(self, kind: int, tokens: torch.Tensor) -> torch.Tensor:
        if self.cond_type_embedding is None:
            return tokens
        return tokens + self.cond_type_embedding(torch.tensor([[kind]], device=tokens.device), out_dtype=tokens.dtype)

    def _run_blocks(
        self,
        image: torch.Tensor,
        text: torch.Tensor,
        state: Mapping[str, Any],
        options: dict[str, Any],
        control: Mapping[str, Sequence[Any]] | None,
    ) -> torch.Tensor:
        """The video's tokens after the last block."""
        residuals = (control or {}).get("input") or ()
        options |= {"total_blocks": len(self.double_blocks), "block_type": "double"}
        for number, block in enumerate(self.double_blocks):
            options["block_index"] = number

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                names = ("img", "txt", "vec", "pe", "modulation_dims_img", "modulation_dims_txt", "transformer_options")
                new_image, new_text = block(**{name: given[name] for name in names}, attn_mask=given["attention_mask"])
                return {"img": new_image, "txt": new_text}

            given = {"img": image, "txt": text, **state, "transformer_options": options}
            out = run_block(options, ("double_block", number), given, original)
            image, text = out["img"], out["txt"]
            residual = residuals[number] if number < len(residuals) else None
            if residual is not None:
                image = image + residual
        return image

    def img_ids(self, x: torch.Tensor) -> torch.Tensor:
        """The places of the tokens of *x*: B x N x 3 (frame, row, column)."""
        counts = [(length + patch // 2) // patch for length, patch in zip(x.shape[2:], self.patch_size)]
        axes = torch.meshgrid(*(torch.arange(count, device=x.device, dtype=x.dtype) for count in counts), indexing="ij")
        return torch.stack(axes, dim=-1).reshape(1, -1, 3).expand(len(x), -1, -1)

    def _as_latent(self, tokens: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Tokens of patches (B x N x values) as a latent of *shape*'s frames, height and width."""
        counts = [length // patch for length, patch in zip(shape[2:], self.patch_size)]
        cells = tokens.unflatten(2, (self.out_channels, *self.patch_size)).unflatten(1, counts)
        cells = cells.permute(0, 4, 1, 5, 2, 6, 3, 7)  # B channels, then patches and places in them, axis by axis
        return cells.flatten(6).flatten(4, 5).flatten(2, 3)
