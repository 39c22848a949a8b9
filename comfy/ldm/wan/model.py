"""Wan's network in ComfyUI's tree, published weight names and hooks: Wan 2.1 and 2.2, with VACE and with cameras.

Shapes: B batch, N tokens of the video, T tokens of the text, C width of a token, F frames with a time of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.common_dit import pad_to_patch_size
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.flux.math import rope
from comfy.ldm.wan.camera import WanCamAdapter, WanCamResidualBlock
from comfy.ldm.wan.layers import (
    WAN_CROSSATTENTION_CLASSES,
    Head,
    MLPProj,
    VaceWanAttentionBlock,
    WanAttentionBlock,
    WanFeedForward,
    WanI2VCrossAttention,
    WanSelfAttention,
    WanT2VCrossAttention,
    repeat_e,
    sinusoidal_embedding_1d,
)
from comfy.placeholders import placeholders

__all__ = [
    "WAN_CROSSATTENTION_CLASSES",
    "CameraWanModel",
    "Head",
    "MLPProj",
    "VaceWanAttentionBlock",
    "VaceWanModel",
    "WanAttentionBlock",
    "WanCamAdapter",
    "WanCamResidualBlock",
    "WanFeedForward",
    "WanI2VCrossAttention",
    "WanModel",
    "WanSelfAttention",
    "WanT2VCrossAttention",
    "repeat_e",
    "sinusoidal_embedding_1d",
]

PATCH = (1, 2, 2)
ROPE_THETA = 10000.0
VISION_WIDTH = 1280  # of what CLIP's large image encoder makes
After = Callable[[int, torch.Tensor], torch.Tensor]

__getattr__, __dir__ = placeholders(
    __name__,
    "Wan models",
    "CausalConv1d=comfy.ldm.wan.hearing MotionEncoder_tc=comfy.ldm.wan.hearing CausalAudioEncoder=comfy.ldm.wan.hearing "
    "AdaLayerNorm=comfy.ldm.wan.hearing AudioInjector_WAN=comfy.ldm.wan.hearing FramePackMotioner=comfy.ldm.wan.hearing "
    "WanModel_S2V=comfy.ldm.wan.sound WanT2VCrossAttentionGather=comfy.ldm.wan.sound AudioCrossAttentionWrapper=comfy.ldm.wan.sound "
    "WanAttentionBlockAudio=comfy.ldm.wan.sound DummyAdapterLayer=comfy.ldm.wan.sound AudioProjModel=comfy.ldm.wan.sound "
    "HumoWanModel=comfy.ldm.wan.sound SCAILWanModel=comfy.ldm.wan.model_scail SCAIL2WanModel=comfy.ldm.wan.model_scail",
)


class WanModel(DiffusionTransformer):
    """The network. *model_type* "i2v" looks at pictures through an image encoder, "t2v" does not.

    *in_dim_ref_conv*: channels of a picture's latent that stands before the video. Patches of ``transformer_options``: ``attn1_patch``,
    ``attn2_patch``, ``double_block`` (after each block), and ``patches_replace["dit"]`` for ``("double_block", number)``.
    """

    PATCH_BLOCKS = {"double_block": "blocks"}
    FLOAT32: tuple[str, ...] = ("patch_embedding.",)

    def __init__(
        self,
        model_type: str = "t2v",
        patch_size: Sequence[int] = PATCH,
        text_len: int = 512,
        in_dim: int = 16,
        dim: int = 2048,
        ffn_dim: int = 8192,
        freq_dim: int = 256,
        text_dim: int = 4096,
        out_dim: int = 16,
        num_heads: int = 16,
        num_layers: int = 32,
        window_size: Sequence[int] = (-1, -1),
        qk_norm: bool = True,
        cross_attn_norm: bool = True,
        eps: float = 1e-6,
        flf_pos_embed_token_number: int | None = None,
        in_dim_ref_conv: int | None = None,
        wan_attn_block_class: type[WanAttentionBlock] = WanAttentionBlock,
        image_model: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        if model_type not in ("t2v", "i2v"):
            raise ValueError(f"model_type is t2v or i2v, not {model_type!r}")
        settings = {"operations": operations, "device": device, "dtype": dtype}
        kept: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dtype, self.model_type, self.patch_size = dtype, model_type, tuple(patch_size)
        self.in_dim, self.dim, self.ffn_dim, self.out_dim = in_dim, dim, ffn_dim, out_dim
        self.freq_dim, self.text_dim, self.text_len = freq_dim, text_dim, text_len
        self.num_heads, self.num_layers, self.window_size = num_heads, num_layers, window_size
        self.qk_norm, self.cross_attn_norm, self.eps = qk_norm, cross_attn_norm, eps
        patches: Any = {"kernel_size": self.patch_size, "stride": self.patch_size, "device": device, "dtype": torch.float32}
        self.patch_embedding = operations.Conv3d(in_dim, dim, **patches)
        linear = operations.Linear
        self.text_embedding = torch.nn.Sequential(linear(text_dim, dim, **kept), torch.nn.GELU("tanh"), linear(dim, dim, **kept))
        self.time_embedding = torch.nn.Sequential(linear(freq_dim, dim, **kept), torch.nn.SiLU(), linear(dim, dim, **kept))
        self.time_projection = torch.nn.Sequential(torch.nn.SiLU(), linear(dim, dim * 6, **kept))
        block = self.block_sizes()
        self.blocks = torch.nn.ModuleList(
            wan_attn_block_class(f"{model_type}_cross_attn", **block, operation_settings=settings) for _ in range(num_layers)
        )
        self.head = Head(dim, out_dim, self.patch_size, eps, settings)
        pair = dim // num_heads // 6 * 2  # of a head's values, for rows and as many for columns; frames have the rest
        self.rope_embedder = EmbedND(dim // num_heads, ROPE_THETA, [dim // num_heads - 2 * pair, pair, pair])
        self.img_emb = MLPProj(VISION_WIDTH, dim, flf_pos_embed_token_number, settings) if model_type == "i2v" else None
        self.ref_conv: Any = None
        if in_dim_ref_conv is not None:
            self.ref_conv = operations.Conv2d(in_dim_ref_conv, dim, self.patch_size[1:], self.patch_size[1:], **kept)

    def block_sizes(self) -> dict[str, Any]:
        """The sizes of a block, by the names of its constructor's arguments."""
        names = ("dim", "ffn_dim", "num_heads", "window_size", "qk_norm", "cross_attn_norm", "eps")
        return {name: getattr(self, name) for name in names}

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        time_dim_concat: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timestep, context, clip_fea, time_dim_concat, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        time_dim_concat: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x frames x height x width, *timestep* B or B x F (0 to 1000), *context* B x T x width of the text encoder.

        *clip_fea*: what an image encoder saw (B x tokens x 1280). *time_dim_concat*: latents that stand behind the video in time.
        *kwargs*: ``reference_latent`` (B x channels x height x width, for ``ref_conv``), ``context_latents`` (further videos to look at).
        """
        options = {} if transformer_options is None else transformer_options
        frames, height, width = x.shape[2:]
        x = pad_to_patch_size(x, self.patch_size)
        if time_dim_concat is not None:
            x = torch.cat((x, pad_to_patch_size(time_dim_concat, self.patch_size)), dim=2)
        places: dict[str, Any] = {"device": x.device, "dtype": x.dtype, "transformer_options": options}
        leading = self.ref_conv is not None and kwargs.get("reference_latent") is not None
        freqs = self.rope_encode(x.shape[2] + leading, height, width, **places)
        if kwargs.get("context_latents") is not None:
            kwargs["context_latents"] = [pad_to_patch_size(latent, self.patch_size) for latent in kwargs["context_latents"]]
            sizes = [latent.shape[-3:] for latent in kwargs["context_latents"]]
            turns = [self.rope_encode(t, h, w, **places, source_id=number) for number, (t, h, w) in enumerate(sizes, 1)]
            freqs = torch.cat((freqs, *turns), dim=1)
        out = self.forward_orig(x, timestep, context, clip_fea=clip_fea, freqs=freqs, transformer_options=options, **kwargs)
        return out[:, :, :frames, :height, :width]

    def forward_orig(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        freqs: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The same for *x* whose sides are whole patches, with the rotations *freqs* of all tokens."""
        options = {} if transformer_options is None else transformer_options
        cells = self._embedded(x, **kwargs)
        grid = cells.shape[2:]
        options["grid_sizes"] = grid
        tokens = cells.flatten(2).transpose(1, 2)
        embedded = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t.flatten()).to(x.dtype)).unflatten(0, (len(t), -1))
        times = self.time_projection(embedded).unflatten(2, (6, self.dim))
        leading = 0
        if self.ref_conv is not None and kwargs.get("reference_latent") is not None:
            reference = self.ref_conv(kwargs["reference_latent"]).flatten(2).transpose(1, 2)
            leading, tokens = reference.shape[1], torch.cat((reference, tokens), dim=1)
        own = tokens.shape[1]
        for patches in self._beside(x, kwargs):
            tokens = torch.cat((tokens, patches.flatten(2).transpose(1, 2)), dim=1)
        context = self.text_embedding(context)
        if clip_fea is not None and self.img_emb is not None:
            context = torch.cat((self.img_emb(clip_fea), context), dim=1)
        state = {"txt": context, "vec": times, "pe": freqs, "context_img_len": None if clip_fea is None else clip_fea.shape[-2]}
        after = self._second_stream(tokens, state, options, kwargs)
        tokens = self._run_blocks(x, tokens, embedded, state, leading, options, after)
        return self.unpatchify(self.head(tokens, embedded)[:, leading:own], grid)

    def _patches(self, x: torch.Tensor) -> torch.Tensor:
        """Latents as B x C x frames x rows x columns of patches; computed in float32."""
        return self.patch_embedding(x.float()).to(x.dtype)

    def _embedded(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """What the video's tokens begin with, of the same shape."""
        return self._patches(x)

    def _beside(self, x: torch.Tensor, given: Mapping[str, Any]) -> Iterable[torch.Tensor]:
        """Patches of further videos, whose tokens stand behind those of *x*; nothing is made of them."""
        return (self._patches(latent.to(x.device)) for latent in given.get("context_latents") or ())

    def _second_stream(
        self, tokens: torch.Tensor, state: Mapping[str, Any], options: dict[str, Any], given: Mapping[str, Any]
    ) -> After | None:
        """What is done to the tokens after each block, given its number; None for nothing."""
        return None

    def _run_blocks(
        self,
        x: torch.Tensor,
        tokens: torch.Tensor,
        embedded: torch.Tensor,
        state: Mapping[str, Any],
        leading: int,
        options: dict[str, Any],
        after: After | None,
    ) -> torch.Tensor:
        """The tokens after the last block."""
        options |= {"total_blocks": len(self.blocks), "block_type": "double"}
        for number, block in enumerate(self.blocks):
            options["block_index"] = number

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                arguments = {"context": given["txt"], "e": given["vec"], "freqs": given["pe"]}
                arguments |= {"context_img_len": state["context_img_len"], "transformer_options": given["transformer_options"]}
                return {"img": block(given["img"], **arguments, **state.get("block", {}))}

            shown = {name: state[name] for name in ("txt", "vec", "pe")}
            tokens = run_block(options, ("double_block", number), {"img": tokens, **shown, "transformer_options": options}, original)["img"]
            for patch in options.get("patches", {}).get("double_block", ()):
                seen = {"img": tokens, "x": x, "vec": embedded, "block_index": number, "img_offset": leading}
                tokens = patch({**seen, "transformer_options": options})["img"]
            if after is not None:
                tokens = after(number, tokens)
        return tokens

    def rope_encode(
        self,
        t: int,
        h: int,
        w: int,
        t_start: float = 0,
        steps_t: int | None = None,
        steps_h: int | None = None,
        steps_w: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        transformer_options: Mapping[str, Any] | None = None,
        source_id: int = 0,
    ) -> torch.Tensor:
        """The rotations of *t* x *h* x *w* latent pixels, 1 x N x 1 x D/2 x 2 x 2, float32.

        ``rope_options`` of *transformer_options* stretch and move the places; steps say into how many these are divided. *source_id*: which
        video to look at it is, from 1 on, which turns all places once more.
        """
        wanted = (transformer_options or {}).get("rope_options") or {}
        starts, steps = (t_start, 0, 0), (steps_t, steps_h, steps_w)
        axes = []
        for axis, length, patch, start, parts in zip("tyx", (t, h, w), self.patch_size, starts, steps):
            patches = (length + patch // 2) // patch
            reach = (patches - 1.0) * wanted.get(f"scale_{axis}", 1.0)
            start = start + wanted.get(f"shift_{axis}", 0.0)
            axes.append(torch.linspace(start, start + reach, patches if parts is None else parts, device=device, dtype=dtype))
        ids = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        freqs = self.rope_embedder(ids.reshape(1, -1, 3)).movedim(1, 2)
        if source_id:
            place = torch.tensor([[float(source_id)]], device=freqs.device)
            freqs = freqs @ rope(place, self.dim // self.num_heads, ROPE_THETA)[:, :, None].to(freqs)
        return freqs

    def unpatchify(self, x: torch.Tensor, grid_sizes: Sequence[int]) -> torch.Tensor:
        """Tokens of patches (B x N x values) as latents of *grid_sizes* frames, rows and columns of patches."""
        frames, rows, columns = grid_sizes
        x = x[:, : math.prod(grid_sizes)].unflatten(2, (*self.patch_size, self.out_dim)).unflatten(1, (frames, rows, columns))
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # B channels, then patches and places in them, axis by axis
        return x.flatten(6).flatten(4, 5).flatten(2, 3)


class VaceWanModel(WanModel):
    """VACE: videos to go by, with masks, run through blocks of their own, which add to the tokens of every few blocks of the network."""

    FLOAT32 = (*WanModel.FLOAT32, "vace_patch_embedding.")

    def __init__(
        self,
        model_type: str = "vace",
        *,
        vace_layers: int | None = None,
        vace_in_dim: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **sizes: Any,
    ) -> None:
        kept: dict[str, Any] = {"device": device, "dtype": dtype, "operations": operations}
        super().__init__("t2v", **kept, **sizes)
        if vace_layers is None:
            return
        self.vace_layers, self.vace_in_dim = vace_layers, vace_in_dim
        block = self.block_sizes()
        self.vace_blocks = torch.nn.ModuleList(
            VaceWanAttentionBlock("t2v_cross_attn", **block, block_id=number, operation_settings=kept) for number in range(vace_layers)
        )
        every = self.num_layers // vace_layers
        self.vace_layers_mapping = {number * every: number for number in range(vace_layers)}
        self.vace_patch_embedding = operations.Conv3d(
            vace_in_dim, self.dim, kernel_size=self.patch_size, stride=self.patch_size, device=device, dtype=torch.float32
        )

    def _second_stream(
        self, tokens: torch.Tensor, state: Mapping[str, Any], options: dict[str, Any], given: Mapping[str, Any]
    ) -> After | None:
        """What each block of the second stream adds: ``vace_context`` of *given* is B x videos x channels x frames x height x width,
        ``vace_strength`` a number for each video."""
        videos = given["vace_context"].movedim(1, 0)
        streams = [self.vace_patch_embedding(video.float()).to(video.dtype).flatten(2).transpose(1, 2) for video in videos]
        arguments = {
            "x": tokens,
            "e": state["vec"],
            "freqs": state["pe"],
            "context": state["txt"],
            "context_img_len": state["context_img_len"],
            "transformer_options": options,
        }

        def after(number: int, x: torch.Tensor) -> torch.Tensor:
            own = self.vace_layers_mapping.get(number)
            if own is not None:
                for index, strength in enumerate(given["vace_strength"][: len(streams)]):
                    added, streams[index] = self.vace_blocks[own](streams[index], **arguments)
                    x = x + added * strength
            return x

        return after


class CameraWanModel(WanModel):
    """Models that are told where the camera is (``camera_conditions``: rays, B x 24 x frames x height x width in pixels)."""

    def __init__(
        self,
        model_type: str = "camera",
        *,
        in_dim_control_adapter: int = 24,
        device: Any = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **sizes: Any,
    ) -> None:
        kept: dict[str, Any] = {"device": device, "dtype": dtype, "operations": operations}
        super().__init__("i2v" if model_type == "camera" else "t2v", **kept, **sizes)
        patch = self.patch_size[1:]
        self.control_adapter = WanCamAdapter(in_dim_control_adapter, self.dim, patch, patch, operation_settings=kept)

    def _embedded(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The patches, with what the camera adds."""
        cells, rays = self._patches(x), kwargs.get("camera_conditions")
        return cells if rays is None else cells + self.control_adapter(rays).to(cells.dtype)
