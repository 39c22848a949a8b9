"""Krea 2's network in ComfyUI's tree, published weight names and hooks.

Shapes: B batch, T tokens of text, I tokens of the picture and its references, C width of a token.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ldm.common_dit
import comfy.utils
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.flux.layers import EmbedND, timestep_embedding
from comfy.ldm.krea2.layers import (
    Attention,
    DoubleSharedModulation,
    LastLayer,
    QKNorm,
    RMSNorm,
    SimpleModulation,
    SingleStreamBlock,
    SwiGLU,
    TextFusionBlock,
    TextFusionTransformer,
)

__all__ = [
    "Attention",
    "DoubleSharedModulation",
    "LastLayer",
    "QKNorm",
    "RMSNorm",
    "SimpleModulation",
    "SingleStreamBlock",
    "SingleStreamDiT",
    "SwiGLU",
    "TextFusionBlock",
    "TextFusionTransformer",
]

AT_TIME_ZERO = "index_timestep_zero"


def rotary_shares(head: int) -> list[int]:
    """How many of a head's values turn by the frame, the row and the column."""
    side = 6 * (head // 16)
    return [head - 2 * side, side, side]


class SingleStreamDiT(DiffusionTransformer):
    """The network. Reference pictures are looked at where ``ref_latents_method`` or *default_ref_method* says how: each is a frame of its
    own, counted from 1; with ``index_timestep_zero`` they are at time 0.

    Patches of ``transformer_options``: ``post_input`` (tokens and places before the first block), ``attn1_patch``,
    ``attn1_output_patch``, and ``patches_replace["dit"]`` for ``("single_block", number)``.
    """

    PATCH_BLOCKS = {"single_block": "blocks"}

    def __init__(
        self,
        features: int = 6144,
        tdim: int = 256,
        txtdim: int = 2560,
        heads: int = 48,
        kvheads: int = 12,
        multiplier: int = 4,
        layers: int = 28,
        patch: int = 2,
        channels: int = 16,
        bias: bool = False,
        theta: float = 1e3,
        txtlayers: int = 12,
        txtheads: int = 20,
        txtkvheads: int = 20,
        default_ref_method: str | None = None,
        image_model: str | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"device": device, "dtype": dtype, "operations": operations}
        placed = {"device": device, "dtype": dtype}
        self.dtype, self.patch, self.channels, self.tdim, self.heads = dtype, patch, channels, tdim, heads
        self.txtdim, self.txtlayers, self.default_ref_method = txtdim, txtlayers, default_ref_method
        head = features // heads
        self.pe_embedder = EmbedND(dim=head, theta=int(theta), axes_dim=rotary_shares(head))
        self.first = operations.Linear(channels * patch**2, features, bias=True, **placed)
        self.blocks = torch.nn.ModuleList(SingleStreamBlock(features, heads, multiplier, bias, kvheads, **kept) for _ in range(layers))
        self.tmlp = torch.nn.Sequential(
            operations.Linear(tdim, features, **placed), torch.nn.GELU("tanh"), operations.Linear(features, features, **placed)
        )
        self.txtfusion = TextFusionTransformer(txtlayers, txtdim, txtheads, multiplier, bias, txtkvheads, **kept)
        self.txtmlp = torch.nn.Sequential(
            RMSNorm(txtdim, **kept),
            operations.Linear(txtdim, features, **placed),
            torch.nn.GELU("tanh"),
            operations.Linear(features, features, **placed),
        )
        self.last = LastLayer(features, patch, channels, **kept)
        self.tproj = torch.nn.Sequential(torch.nn.GELU("tanh"), operations.Linear(features, 6 * features, **placed))

    def process_img(self, x: torch.Tensor, index: int = 0) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        """(tokens B x I x patch values, their places B x I x 3 — *index*, row, column —, rows, columns) of *x* (B x channels x h x w)."""
        padded = comfy.ldm.common_dit.pad_to_patch_size(x, (self.patch, self.patch))
        rows, columns = (side // self.patch for side in padded.shape[-2:])
        tokens = torch.nn.functional.pixel_unshuffle(padded, self.patch).flatten(2).transpose(1, 2)
        places = torch.full((rows, columns, 3), float(index), device=x.device)
        places[..., 1] = torch.arange(rows, device=x.device)[:, None]
        places[..., 2] = torch.arange(columns, device=x.device)
        return tokens, places.flatten(0, 1).expand(len(x), -1, -1), rows, columns

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        ref_latents: Sequence[torch.Tensor] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, attention_mask, ref_latents, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        ref_latents: Sequence[torch.Tensor] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels (x 1) x height x width, *timesteps* B (0 to 1), *context* B x T x (layers · width of the text model).

        *attention_mask* is not used, as in ComfyUI. *ref_latents*: pictures to look at, each like *x*. Raises ``ValueError`` for a context
        of another width.
        """
        options = {} if transformer_options is None else dict(transformer_options)
        image = _without_frames(x)
        text = self._unpack_context(context)
        tokens, places, rows, columns = self.process_img(image)
        own_tokens, zero_from = tokens.shape[1], None
        method = kwargs.get("ref_latents_method", self.default_ref_method)
        if method is not None and ref_latents:
            parts = [self.process_img(_fitting(latent, image), number)[:2] for number, latent in enumerate(ref_latents, 1)]
            options["reference_image_num_tokens"] = [part[0].shape[1] for part in parts]
            tokens, places = (torch.cat(own, dim=1) for own in zip((tokens, places), *parts))
            zero_from = own_tokens if method == AT_TIME_ZERO else None
        embedded = self.first(tokens)
        time, vector = self._times(timesteps, zero_from is not None, embedded)
        text = self.txtmlp(self.txtfusion(text, transformer_options=options))
        state = {"img": embedded, "txt": text, "img_ids": places, "txt_ids": places.new_zeros(len(image), text.shape[1], 3)}
        for patch in options.get("patches", {}).get("post_input", ()):
            state = {**state, **patch({**state, "transformer_options": options})}
        zero_from = None if zero_from is None else zero_from + state["txt"].shape[1]
        last = self.last(self._run_blocks(state, vector, zero_from, options), time)
        start = state["txt"].shape[1]
        cells = last[:, start : start + own_tokens].transpose(1, 2).unflatten(2, (rows, columns))
        made = torch.nn.functional.pixel_shuffle(cells, self.patch)[..., : x.shape[-2], : x.shape[-1]]
        return made if x.ndim == image.ndim else made.unsqueeze(2)

    def _times(self, timesteps: torch.Tensor, with_zero: bool, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(the embedded times B x 1 x C, what they give all blocks B x 1 x 6C, *with_zero* with rows for time 0 below)."""
        given = torch.cat((timesteps, torch.zeros_like(timesteps))) if with_zero else timesteps
        embedded = self.tmlp(timestep_embedding(given, self.tdim)[:, None].to(like.dtype))
        return embedded[: len(timesteps)], self.tproj(embedded)

    def _run_blocks(
        self, state: Mapping[str, torch.Tensor], vector: torch.Tensor, zero_from: int | None, options: dict[str, Any]
    ) -> torch.Tensor:
        """Text and pictures after the last block."""
        joined = torch.cat((state["txt"], state["img"]), dim=1)
        rotations = self.pe_embedder(torch.cat((state["txt_ids"], state["img_ids"]), dim=1))
        options |= {"total_blocks": len(self.blocks), "block_type": "single"}
        options["img_slice"] = [state["txt"].shape[1], joined.shape[1]]
        for number, block in enumerate(self.blocks):
            options["block_index"] = number

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                with_time = {"timestep_zero_index": zero_from, "transformer_options": given["transformer_options"]}
                return {"img": block(given["img"], given["vec"], given["pe"], given.get("attn_mask"), **with_time)}

            given = {"img": joined, "vec": vector, "pe": rotations, "transformer_options": options}
            joined = run_block(options, ("single_block", number), given, original)["img"]
        return joined

    def _unpack_context(self, context: torch.Tensor) -> torch.Tensor:
        """*context* as B x T x layers x width."""
        if context.shape[-1] != self.txtlayers * self.txtdim:
            raise ValueError(
                f"Krea 2 takes texts of {self.txtlayers} x {self.txtdim} values per token, but this one has {context.shape[-1]}; "
                "load Qwen3-VL 4B with CLIPLoader's type krea2"
            )
        return context.unflatten(-1, (self.txtlayers, self.txtdim))


def _without_frames(x: torch.Tensor) -> torch.Tensor:
    """*x* without its dimension of frames, of which there is one. Raises ``ValueError`` for several."""
    if x.ndim == 5 and x.shape[2] != 1:
        raise ValueError(f"Krea 2 makes one picture at a time, but the latent has {x.shape[2]} frames")
    return x.squeeze(2) if x.ndim == 5 else x


def _fitting(latent: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """*latent* for as many pictures as *image* has."""
    return comfy.utils.repeat_to_batch_size(_without_frames(latent), len(image))
