"""The network of HunyuanVideo 1 and 1.5 in ComfyUI's tree and hooks.

Shapes: B batch, N tokens of the video, T tokens of text, C width of a token.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.flux.layers import DoubleStreamBlock, EmbedND, LastLayer, MLPEmbedder, SingleStreamBlock, timestep_embedding
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
    """The network. ``patches_replace["dit"]`` of ``transformer_options`` replaces ``("double_block", number)`` and
    ``("single_block", number)``.

    *kwargs* are those of :class:`HunyuanVideoParams`; HunyuanVideo 1 has a vector of pooled text and blocks of a single stream, 1.5 has
    what was seen, what is to be written, and their kinds.
    """

    PATCH_BLOCKS = {"double_block": "double_blocks", "single_block": "single_blocks"}

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
        made: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        self.dtype, self.patch_size = dtype, list(params.patch_size)
        self.in_channels, self.out_channels = params.in_channels, params.out_channels
        self.hidden_size, self.num_heads = width, heads = params.hidden_size, params.num_heads
        self.pe_embedder = EmbedND(width // heads, params.theta, params.axes_dim)
        self.img_in = VideoPatches(self.patch_size, params.in_channels, width, **made)
        self.time_in = MLPEmbedder(TIME_CHANNELS, width, **made)
        self.vector_in = None if params.vec_in_dim is None else MLPEmbedder(params.vec_in_dim, width, **made)
        self.guidance_in: Any = MLPEmbedder(TIME_CHANNELS, width, **made) if params.guidance_embed else torch.nn.Identity()
        self.txt_in = TokenRefiner(params.context_in_dim, width, heads, REFINER_BLOCKS, **made)
        self.double_blocks = torch.nn.ModuleList(
            DoubleStreamBlock(width, heads, params.mlp_ratio, params.qkv_bias, **made) for _ in range(params.depth)
        )
        self.single_blocks = torch.nn.ModuleList(
            SingleStreamBlock(width, heads, params.mlp_ratio, **made) for _ in range(params.depth_single_blocks)
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
        guiding_frame_index: torch.Tensor | None = None,
        ref_latent: torch.Tensor | None = None,
        disable_time_r: bool = False,
        control: Mapping[str, Sequence[Any]] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        given = (x, timestep, context, y, txt_byt5, clip_fea, guidance, attention_mask, guiding_frame_index, ref_latent, disable_time_r)
        return self.wrapped(*given, control, options, options=options, **kwargs)

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
        guiding_frame_index: torch.Tensor | None = None,
        ref_latent: torch.Tensor | None = None,
        disable_time_r: bool = False,
        control: Mapping[str, Sequence[Any]] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x frames x height x width, *timestep* B (0 to 1000), *context* B x T x width of the text encoder.

        *y*: pooled text (B x width); *txt_byt5*: texts to be written (B x tokens x 1472); *clip_fea*: what an image encoder saw;
        *attention_mask*: B x T, 0 where there is no text (integers) or what is added to scores; *guiding_frame_index*: the time (one
        number) that holds for the first frame, which is then given; *ref_latent*: a picture's latent beside the video; *control*:
        residuals for blocks under ``input`` and ``output``.
        """
        options = dict(transformer_options or {})
        image, places = self.img_in(x), self.img_ids(x)
        vec = self._vector(self._time(timestep, image, options, disable_time_r), y, guidance, guiding_frame_index)
        ranges, beside = None, 0
        if guiding_frame_index is not None:
            frame = math.prod(self._counts(x.shape)[1:])
            ranges = ((0, frame, 0), (frame, None, 1))
        if ref_latent is not None:
            image, places = self._with_reference(ref_latent, image, places, self._counts(x.shape)[2])
            beside = image.shape[1] - math.prod(self._counts(x.shape))
        mask = attention_mask
        if mask is not None and not torch.is_floating_point(mask):
            mask = (mask - 1).to(image.dtype) * torch.finfo(image.dtype).max
        text = self._text(context, timestep, mask, txt_byt5, clip_fea, options)
        scores = None
        if mask is not None:
            scores = image.new_zeros(len(mask), 1, text.shape[1] + image.shape[1])
            scores[:, 0, text.shape[1] - mask.shape[1] : text.shape[1]] = mask
        rotations = self.pe_embedder(torch.cat((x.new_zeros(len(x), text.shape[1], 3), places), dim=1))
        image = self._run_blocks(image, text, {"vec": vec, "pe": rotations, "attention_mask": scores}, ranges, options, control)
        return self._as_latent(self.final_layer(image[:, beside:], vec, modulation_dims=ranges), x.shape)

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

    def _vector(
        self, time: torch.Tensor, pooled: torch.Tensor | None, guidance: torch.Tensor | None, first_time: torch.Tensor | None
    ) -> torch.Tensor:
        """The conditioning of all tokens, B x C; with the time of the first frame B x 2 x C, that of the first frame before the others'."""
        vec = time
        if first_time is not None:
            first = self.time_in(timestep_embedding(first_time, TIME_CHANNELS, time_factor=1.0).to(time.dtype))
            vec = torch.stack((first.expand_as(time), time), dim=1)

        def added(more: torch.Tensor) -> torch.Tensor:
            return vec + (more if vec.ndim == 2 else more[:, None])

        if self.vector_in is not None:
            if pooled is None:
                raise ValueError("this model takes pooled text, which its own text encoder gives; the conditioning has none")
            vec = added(self.vector_in(pooled[:, : self.params.vec_in_dim]))
        if self.params.guidance_embed and guidance is not None:
            vec = added(self.guidance_in(timestep_embedding(guidance, TIME_CHANNELS).to(time.dtype)))
        return vec

    def _with_reference(
        self, latent: torch.Tensor, image: torch.Tensor, places: torch.Tensor, columns: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and places with those of a picture's *latent* before them, right of the video's *columns*, a frame earlier."""
        own = self.img_ids(latent).clone()
        own[..., 0] = -1
        own[..., 2] += columns
        return torch.cat((self.img_in(latent), image), dim=1), torch.cat((own, places), dim=1)

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
        ranges: Any,
        options: dict[str, Any],
        control: Mapping[str, Sequence[Any]] | None,
    ) -> torch.Tensor:
        """The video's tokens after the last block. *ranges*: which tokens of the video have which row of the vector, if there are rows."""
        for_both = {"modulation_dims_img": ranges, "modulation_dims_txt": None if ranges is None else [(0, None, 1)]}
        options |= {"total_blocks": len(self.double_blocks), "block_type": "double"}
        for number, block in enumerate(self.double_blocks):
            options["block_index"] = number
            given = {"img": image, "txt": text, **state, **for_both, "transformer_options": options}
            out = run_block(options, ("double_block", number), given, functools.partial(_run_double, block))
            image, text = out["img"], out["txt"]
            residual = _residual(control, "input", number)
            if residual is not None:
                image = image + residual
        words, tokens = text.shape[1], text.shape[1] + image.shape[1]
        if not self.single_blocks:
            return image
        both = torch.cat((text, image), dim=1)
        options |= {"total_blocks": len(self.single_blocks), "block_type": "single", "img_slice": [words, tokens]}
        for number, block in enumerate(self.single_blocks):
            options["block_index"] = number
            # As in ComfyUI, the ranges count from the first token of the text here.
            given = {"img": both, **state, "modulation_dims": ranges, "transformer_options": options}
            both = run_block(options, ("single_block", number), given, functools.partial(_run_single, block))["img"]
            residual = _residual(control, "output", number)
            if residual is not None:
                both[:, words:] += residual
        return both[:, words:]

    def _counts(self, shape: Sequence[int]) -> list[int]:
        """How many patches a latent of *shape* has along each axis, padded ones included."""
        return [-(-length // patch) for length, patch in zip(shape[2:], self.patch_size)]

    def img_ids(self, x: torch.Tensor) -> torch.Tensor:
        """The places of the tokens of *x*: B x N x 3 (frame, row, column)."""
        axes = torch.meshgrid(*(torch.arange(count, device=x.device, dtype=x.dtype) for count in self._counts(x.shape)), indexing="ij")
        return torch.stack(axes, dim=-1).reshape(1, -1, 3).expand(len(x), -1, -1)

    def _as_latent(self, tokens: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Tokens of patches (B x N x values) as a latent of *shape*'s frames, height and width."""
        cells = tokens.unflatten(2, (self.out_channels, *self.patch_size)).unflatten(1, self._counts(shape))
        cells = cells.permute(0, 4, 1, 5, 2, 6, 3, 7)  # B channels, then patches and places in them, axis by axis
        return cells.flatten(6).flatten(4, 5).flatten(2, 3)[:, :, : shape[2], : shape[3], : shape[4]]


def _run_double(block: torch.nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("img", "txt", "vec", "pe", "modulation_dims_img", "modulation_dims_txt", "transformer_options")
    image, text = block(**{name: given[name] for name in names}, attn_mask=given["attention_mask"])
    return {"img": image, "txt": text}


def _run_single(block: torch.nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("vec", "pe", "modulation_dims", "transformer_options")
    return {"img": block(given["img"], **{name: given[name] for name in names}, attn_mask=given["attention_mask"])}


def _residual(control: Mapping[str, Sequence[Any]] | None, kind: str, number: int) -> torch.Tensor | None:
    residuals = (control or {}).get(kind) or ()
    return residuals[number] if number < len(residuals) else None
