"""Kandinsky 5's network in ComfyUI's tree, published weight names and hooks.

Shapes: B batch, T tokens of text, D width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ldm.common_dit
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.kandinsky5.layers import (
    THETA,
    CrossAttention,
    FeedForward,
    Modulation,
    OutLayer,
    SelfAttention,
    TextEmbeddings,
    TimeEmbeddings,
    TransformerDecoderBlock,
    TransformerEncoderBlock,
    VisualEmbeddings,
    apply_gate_sum,
    apply_scale_shift_norm,
    attention,
    get_freqs,
    get_shift_scale_gate,
)

__all__ = [
    "CrossAttention",
    "FeedForward",
    "Kandinsky5",
    "Modulation",
    "OutLayer",
    "SelfAttention",
    "TextEmbeddings",
    "TimeEmbeddings",
    "TransformerDecoderBlock",
    "TransformerEncoderBlock",
    "VisualEmbeddings",
    "apply_gate_sum",
    "apply_scale_shift_norm",
    "attention",
    "get_freqs",
    "get_shift_scale_gate",
]

Options = dict[str, Any]
PRO_WIDTH, PRO_AREA, PRO_SCALE = 4096, 14080, (1.0, 3.16, 3.16)  # the largest network stretches large pictures' places further


class Kandinsky5(DiffusionTransformer):
    """The network. ``patches_replace["dit"]`` of ``transformer_options`` replaces ``("double_block", number)``."""

    PATCH_BLOCKS = {"double_block": "visual_transformer_blocks"}

    def __init__(
        self,
        in_visual_dim: int = 16,
        out_visual_dim: int = 16,
        in_text_dim: int = 3584,
        in_text_dim2: int = 768,
        time_dim: int = 512,
        model_dim: int = 1792,
        ff_dim: int = 7168,
        visual_embed_dim: int = 132,
        patch_size: Sequence[int] = (1, 2, 2),
        num_text_blocks: int = 2,
        num_visual_blocks: int = 32,
        axes_dims: Sequence[int] = (16, 24, 24),
        rope_scale_factor: Sequence[float] = (1.0, 2.0, 2.0),
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        made = {"operations": operations, "device": device, "dtype": dtype}
        head = sum(axes_dims)
        self.rope_scale_factor, self.in_visual_dim, self.model_dim = rope_scale_factor, in_visual_dim, model_dim
        self.patch_size, self.visual_embed_dim, self.dtype = patch_size, visual_embed_dim, dtype
        self.time_embeddings = TimeEmbeddings(model_dim, time_dim, operation_settings=made)
        self.text_embeddings = TextEmbeddings(in_text_dim, model_dim, made)
        self.pooled_text_embeddings = TextEmbeddings(in_text_dim2, time_dim, made)
        self.visual_embeddings = VisualEmbeddings(visual_embed_dim, model_dim, patch_size, made)
        sizes = (model_dim, time_dim, ff_dim, head, made)
        self.text_transformer_blocks = torch.nn.ModuleList(TransformerEncoderBlock(*sizes) for _ in range(num_text_blocks))
        self.visual_transformer_blocks = torch.nn.ModuleList(TransformerDecoderBlock(*sizes) for _ in range(num_visual_blocks))
        self.out_layer = OutLayer(model_dim, time_dim, out_visual_dim, patch_size, made)
        self.rope_embedder_3d = EmbedND(dim=head, theta=THETA, axes_dim=axes_dims)
        self.rope_embedder_1d = EmbedND(dim=head, theta=THETA, axes_dim=[head])

    def rope_encode_1d(self, seq_len: int, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The rotations of a text of *seq_len* tokens: 1 x tokens x 1 x D/2 x 2 x 2."""
        return self.rope_embedder_1d(torch.arange(seq_len, device=device, dtype=dtype).view(1, -1, 1)).movedim(1, 2)

    def rope_encode_3d(
        self, t: int, h: int, w: int, device: Any = None, dtype: torch.dtype | None = None, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """The rotations of a latent of *t* frames of *h* x *w* places: 1 x tokens x 1 x D/2 x 2 x 2.

        Places are stretched as the network was trained, or stretched and moved as ``rope_options`` of *transformer_options* say.
        """
        counts = [-(-length // patch) for length, patch in zip((t, h, w), self.patch_size)]
        asked = (transformer_options or {}).get("rope_options")
        if asked is None:
            is_large = self.model_dim == PRO_WIDTH and h * w >= PRO_AREA
            starts, factors = (0.0, 0.0, 0.0), [1 / scale for scale in (PRO_SCALE if is_large else self.rope_scale_factor)]
        else:
            starts = tuple(asked.get(f"shift_{axis}", 0.0) for axis in "tyx")
            factors = [asked.get(f"scale_{axis}", 1.0) for axis in "tyx"]
        axes = [
            torch.linspace(start, start + (count - 1) * factor, steps=count, device=device, dtype=dtype)
            for start, count, factor in zip(starts, counts, factors)
        ]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 3)
        return self.rope_embedder_3d(places).movedim(1, 2)

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        y: torch.Tensor,
        time_dim_replace: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        arguments = {"time_dim_replace": time_dim_replace, "transformer_options": options, **kwargs}
        return self.wrapped(x, timestep, context, y, options=options, **arguments)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        y: torch.Tensor,
        time_dim_replace: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x frames x height x width (pictures without frames), *timestep* B (0 to 1000), *context* B x T x width of the
        text encoder, *y* pooled text (B x width). *time_dim_replace*: frames that stand in place of *x*'s first ones.
        """
        options = {} if transformer_options is None else transformer_options
        is_picture = x.ndim == 4
        video = x.unsqueeze(2) if is_picture else x
        frames, height, width = video.shape[2:]
        padded = comfy.ldm.common_dit.pad_to_patch_size(video, tuple(self.patch_size))
        if time_dim_replace is not None:
            given = comfy.ldm.common_dit.pad_to_patch_size(time_dim_replace, tuple(self.patch_size))
            padded = padded.clone()
            padded[:, : given.shape[1], : given.shape[2]] = given
        place: dict[str, Any] = {"device": x.device, "dtype": x.dtype}
        freqs = self.rope_encode_3d(frames, height, width, transformer_options=options, **place)
        out = self._run(padded, timestep, context, y, freqs, self.rope_encode_1d(context.shape[1], **place), options)
        out = out[:, :, :frames, :height, :width]
        return out.squeeze(2) if is_picture else out

    def _run(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        y: torch.Tensor,
        freqs: torch.Tensor,
        freqs_text: torch.Tensor,
        options: Options,
    ) -> torch.Tensor:
        text = self.text_embeddings(context)
        time_embed = self.time_embeddings(timestep, x.dtype) + self.pooled_text_embeddings(y)
        for block in self.text_transformer_blocks:
            text = block(text, time_embed, freqs_text, transformer_options=options)
        embedded = self.visual_embeddings(x)
        tokens = embedded.flatten(1, -2)
        options |= {"total_blocks": len(self.visual_transformer_blocks), "block_type": "double"}
        for number, block in enumerate(self.visual_transformer_blocks):
            options["block_index"] = number

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                names = ("context", "time_embed", "freqs", "transformer_options")
                return {"x": block(given["x"], *(given[name] for name in names))}

            given = {"x": tokens, "context": text, "time_embed": time_embed, "freqs": freqs, "transformer_options": options}
            tokens = run_block(options, ("double_block", number), given, original)["x"]
        return self.out_layer(tokens.view_as(embedded), time_embed)
