"""Qwen-Image 2.1's network in ComfyUI's tree, published weight names and hooks.

Text, pictures to look at and the picture that is made are one sequence in which tokens attend to those before them, and within a picture to
all of it. All but the picture that is made are at time 0, so that what the layers make of them is the same at every step.

Shapes: B batch, T tokens of text, P tokens before the picture that is made (its prefix), I tokens of that picture, C width of a token.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.utils
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.qwen_image21.layers import (
    Attend,
    Attention,
    LastLayer,
    Modulation,
    Options,
    QwenImage21TransformerBlock,
    Segment,
    SwiGLUFeedForward,
    TextProjection,
    TimestepEmbedding,
    TimestepProjEmbeddings,
    ZeroCenteredRMSNorm,
    block_causal_attention,
)
from comfy.ldm.qwen_image21.prefix_cache import Prefix, PrefixCache

__all__ = [
    "Attention",
    "LastLayer",
    "QwenImage21Transformer2DModel",
    "QwenImage21TransformerBlock",
    "SwiGLUFeedForward",
    "TextProjection",
    "TimestepEmbedding",
    "TimestepProjEmbeddings",
    "ZeroCenteredRMSNorm",
    "block_causal_attention",
]

ROPE_THETA = 10000
SCALES = 4  # scale and gate of attention and of the wider layer
HOOKS = ("post_input", "single_block", "attn1_patch")  # patches that must see every token at every step


class QwenImage21Transformer2DModel(DiffusionTransformer):
    """The network.

    Patches of ``transformer_options``: ``post_input`` (tokens and places before the first block), ``single_block`` (after each block),
    ``attn1_patch``, and ``patches_replace["dit"]`` for ``("single_block", number)``. Without any, the keys and values of the prefix are
    kept for the run, see :mod:`comfy.ldm.qwen_image21.prefix_cache`.
    """

    PATCH_BLOCKS = {"single_block": "transformer_blocks"}

    def __init__(
        self,
        in_channels: int = 64,
        out_channels: int | None = 64,
        num_layers: int = 32,
        attention_head_dim: int = 128,
        num_attention_heads: int = 32,
        context_in_dim: int = 4096,
        mlp_ratio: int = 3,
        axes_dims_rope: Sequence[int] = (16, 56, 56),
        eps: float = 1e-6,
        fused_mlp: bool = True,
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        placed: dict[str, Any] = {"dtype": dtype, "device": device}
        kept = {**placed, "operations": operations}
        self.dtype = dtype
        self.in_channels, self.out_channels = in_channels, out_channels or in_channels
        self.inner_dim = width = num_attention_heads * attention_head_dim
        self.pe_embedder = EmbedND(dim=attention_head_dim, theta=ROPE_THETA, axes_dim=list(axes_dims_rope))
        self.time_text_embed = TimestepProjEmbeddings(width, **kept)
        self.txt_in = TextProjection(context_in_dim, width, eps, **kept)
        self.img_in = operations.Linear(in_channels, width, bias=False, **placed)
        self.modulation = torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(width, SCALES * width, bias=False, **placed))
        self.transformer_blocks = torch.nn.ModuleList(
            QwenImage21TransformerBlock(width, num_attention_heads, attention_head_dim, mlp_ratio, eps, fused_mlp, **kept)
            for _ in range(num_layers)
        )
        self.norm_out = LastLayer(width, width, eps, **kept)
        self.proj_out = operations.Linear(width, self.out_channels, bias=False, **placed)
        self.prefix_cache, self.prefix_cache_enabled = PrefixCache(), True

    def reset_prefix_cache(self, enabled: bool = True) -> None:
        """Forget what was kept of prefixes; *enabled*: whether any is kept from now on."""
        self.prefix_cache.free()
        self.prefix_cache_enabled = enabled

    def build_sequence(
        self,
        x: torch.Tensor,
        context: torch.Tensor,
        ref_latents: Sequence[torch.Tensor] | None = None,
        image_slots: Sequence[int] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, list[Segment]]:
        """(all tokens B x (P + I) x C, their places 1 x (P + I) x 3 — frame, row, column —, the parts of the prefix).

        *image_slots*: before which token of the text each of *ref_latents* stands; those without one stand behind all text. Places are
        counted over text on all three axes; a picture is one place, beyond which it goes on by its longer side, with rows and columns from
        its middle.
        """
        references = list(ref_latents or ())
        slots = [*(image_slots or ())][: len(references)]
        slots += [context.shape[1]] * (len(references) - len(slots))
        text = self.txt_in(context)
        tokens: list[torch.Tensor] = []
        places: list[torch.Tensor] = []
        segments: list[Segment] = []
        done = place = 0
        for slot, latent in zip([*slots, text.shape[1]], [*references, x]):
            if slot > done:
                segments.append((sum(part.shape[1] for part in tokens), sum(part.shape[1] for part in tokens) + slot - done, True))
                tokens.append(text[:, done:slot])
                places.append(torch.arange(place, place + slot - done, device=x.device)[:, None].expand(-1, 3))
                place, done = place + slot - done, slot
            start = sum(part.shape[1] for part in tokens)
            grid = comfy.utils.repeat_to_batch_size(latent, len(x))
            segments.append((start, start + grid.shape[-2] * grid.shape[-1], False))
            tokens.append(self.img_in(grid.flatten(2).transpose(1, 2)))
            places.append(_grid_places(grid, place))
            place += max(grid.shape[-2:])
        return torch.cat(tokens, dim=1), torch.cat(places)[None].to(torch.float32), segments[:-1]

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        ref_latents: Sequence[torch.Tensor] | None = None,
        image_slots: Sequence[int] | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timesteps, context, ref_latents, image_slots, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        ref_latents: Sequence[torch.Tensor] | None = None,
        image_slots: Sequence[int] | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x height x width, *timesteps* B (0 to 1), *context* B x T x width of the text encoder.

        *ref_latents*: pictures to look at, each like *x*; *image_slots*: see :meth:`build_sequence`.
        """
        options: Options = {} if transformer_options is None else dict(transformer_options)
        hidden, places, segments = self.build_sequence(x, context, ref_latents, image_slots)
        prefix = hidden.shape[1] - x.shape[-2] * x.shape[-1]
        time = self.time_text_embed(torch.cat((timesteps, timesteps.new_zeros(1))), hidden)
        state: Mapping[str, Any] = {"img": hidden, "img_ids": places}
        for patch in options.get("patches", {}).get("post_input", ()):
            state = {**state, **patch({**state, "transformer_options": options})}
        hidden, rotations = state["img"], self.pe_embedder(state["img_ids"])
        kept = None
        if self.prefix_cache_enabled and prefix and not _is_hooked(options):
            marks = [context, *(ref_latents or ()), tuple(image_slots or ()), len(x), tuple(x.shape[-2:])]
            needed = 2 * len(self.transformer_blocks) * len(x) * prefix * self.inner_dim * hidden.element_size()
            kept = self.prefix_cache.select(options, marks, needed, x.device)
        known = kept is not None and kept.filled
        if known:
            hidden, rotations = hidden[:, prefix:], rotations[:, :, prefix:]
        hidden = self._run_blocks(hidden, self._modulation(time, 0 if known else prefix), rotations, segments, prefix, kept, options)
        made = self.proj_out(self.norm_out(hidden[:, -(x.shape[-2] * x.shape[-1]) :], time[:-1]))
        return made.transpose(1, 2).unflatten(2, x.shape[-2:])

    def _modulation(self, time: torch.Tensor, prefix: int) -> Modulation:
        """Scales and gates for the times of the picture, *time*'s rows but the last, which is that of its *prefix*."""
        parts = self.modulation(time)[:, None].chunk(SCALES, dim=-1)
        bounded = [part.tanh() if number % 2 else part for number, part in enumerate(parts)]
        return Modulation([part[:-1] for part in bounded], [part[-1:] for part in bounded], prefix)

    def _run_blocks(
        self,
        hidden: torch.Tensor,
        mod: Modulation,
        rotations: torch.Tensor,
        segments: Sequence[Segment],
        prefix: int,
        kept: Prefix | None,
        options: Options,
    ) -> torch.Tensor:
        """All tokens after the last block; only those of the picture where *kept* holds what there is of the others."""
        options |= {"total_blocks": len(self.transformer_blocks), "block_type": "single"}
        for number, block in enumerate(self.transformer_blocks):
            options["block_index"] = number
            attend = _attention(segments, prefix, kept, number)

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                return {"img": block(given["img"], given["mod"], given["pe"], given["attn_fn"], given["transformer_options"])}

            given = {"img": hidden, "mod": mod, "pe": rotations, "attn_fn": attend, "prefix_len": prefix, "transformer_options": options}
            hidden = run_block(options, ("single_block", number), given, original)["img"]
            for patch in options.get("patches", {}).get("single_block", ()):
                seen = {"img": hidden, "block_index": number, "prefix_len": prefix, "transformer_options": options}
                hidden = patch(seen)["img"]
        if kept is not None:
            kept.filled = True
        return hidden


def _attention(segments: Sequence[Segment], prefix: int, kept: Prefix | None, number: int) -> Attend:
    """How the tokens of the block *number* attend, with what *kept* holds of the prefix where it is filled; else it is put there."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: Options) -> torch.Tensor:
        if kept is None:
            return block_causal_attention(q, k, v, segments, options)
        if not kept.filled:
            kept.put(number, k[:, :, :prefix], v[:, :, :prefix])
            return block_causal_attention(q, k, v, segments, options)
        keys, values = kept.get(number, k)
        return block_causal_attention(q, torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2), (), options)

    return attend


def _grid_places(grid: torch.Tensor, place: int) -> torch.Tensor:
    """Frame *place*, row and column from the middle of the latent pixels of *grid*: pixels x 3."""
    height, width = grid.shape[-2:]
    rows = torch.arange(height, device=grid.device) - (height - height // 2)
    columns = torch.arange(width, device=grid.device) - (width - width // 2)
    frame = torch.tensor([place], device=grid.device)
    return torch.cartesian_prod(frame, rows, columns)


def _is_hooked(options: Mapping[str, Any]) -> bool:
    """Whether something looks into the blocks, which must find all tokens there."""
    patches = options.get("patches", {})
    return any(patches.get(name) for name in HOOKS) or bool(options.get("patches_replace", {}).get("dit"))
