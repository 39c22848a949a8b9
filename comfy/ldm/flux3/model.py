"""Flux.3's network for pictures, under the authors' weight names, with ComfyUI's hooks.

Text, picture and the pictures to look at first go through blocks of their own mode, then through joint ones.
Shapes: B batch, T tokens of text, I tokens of the picture, R of those to look at, C width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.utils
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.flux.layers import EmbedND, MLPEmbedder, timestep_embedding
from comfy.ldm.flux3.layers import LastLayer, Modulation, ParallelBlock

PICTURE, SEEN, TEXT = MODES = ("image", "image_cond", "txt")
STEP = 0.5  # from one row or column of a picture to the next
Options = dict[str, Any]


class Flux3(DiffusionTransformer):
    """The network. With ``ref_time_in`` it goes from one time to another, the next that the sampler tells, 0 after the last.

    ``patches_replace["dit"]`` of ``transformer_options`` replaces joint blocks as ``("single_block", number)``.
    """

    PATCH_BLOCKS = {"single_block": "single_blocks"}

    def __init__(
        self,
        in_channels: int = 128,
        cond_in_channels: int = 128,
        context_in_dim: int = 20480,
        hidden_size: int = 3072,
        num_heads: int = 24,
        depth: int = 5,
        depth_single_blocks: int = 28,
        mlp_ratio: float = 3.0,
        time_dim: int = 256,
        axes_dim: Sequence[int] = (32, 32, 32, 32),
        theta: int = 10000,
        flow_map: bool = False,
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        placed: Options = {"dtype": dtype, "device": device}
        kept: Options = {**placed, "operations": operations}
        block: Options = {"heads": num_heads, "mlp_ratio": mlp_ratio, **kept}
        self.dtype, self.in_channels, self.out_channels, self.context_in_dim = dtype, in_channels, in_channels, context_in_dim
        self.time_dim = time_dim
        self.pe_embedder = EmbedND(dim=hidden_size // num_heads, theta=theta, axes_dim=list(axes_dim))
        self.time_in = MLPEmbedder(time_dim, hidden_size, bias=False, **kept)
        self.ref_time_in = MLPEmbedder(time_dim, hidden_size, bias=False, **kept) if flow_map else None
        self.early_stream_modulations, self.single_stream_modulations = (
            torch.nn.ModuleDict({mode: Modulation(hidden_size, **kept) for mode in MODES}) for _ in range(2)
        )
        widths = {PICTURE: in_channels, SEEN: cond_in_channels}
        self.emb_in = torch.nn.ModuleDict(
            {mode: operations.Linear(width, hidden_size, bias=False, **placed) for mode, width in widths.items()}
        )
        self.txt_in = operations.Linear(context_in_dim, hidden_size, bias=False, **placed)
        self.content_mode_blocks = torch.nn.ModuleDict(
            {mode: torch.nn.ModuleList(ParallelBlock(hidden_size, **block) for _ in range(depth)) for mode in widths}
        )
        self.txt_mode_blocks = torch.nn.ModuleList(ParallelBlock(hidden_size, **block) for _ in range(depth))
        self.single_blocks = torch.nn.ModuleList(ParallelBlock(hidden_size, **block) for _ in range(depth_single_blocks))
        self.final_layer = torch.nn.ModuleDict({PICTURE: LastLayer(hidden_size, in_channels, **kept)})

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        ref_latents: Sequence[torch.Tensor] | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timestep, context, ref_latents, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        ref_latents: Sequence[torch.Tensor] | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x channels x rows x columns, *timestep* B (1 is noise), *context* B x T x width of the text. *ref_latents*: pictures to
        look at, each like *x* in its own size; they and the text are at time 0.

        Raises ``ValueError`` for a text of another width.
        """
        options = {} if transformer_options is None else dict(transformer_options)
        if context.shape[-1] != self.context_in_dim:
            raise ValueError(
                f"Flux.3 takes texts of {self.context_in_dim} values per token, but this one has {context.shape[-1]}; "
                "load Qwen3-VL 4B with CLIPLoader's type flux3"
            )
        pictures = [comfy.utils.repeat_to_batch_size(latent.to(x), len(x)) for latent in ref_latents or ()]
        rows = {TEXT: self.txt_in(context), PICTURE: self.emb_in[PICTURE](_tokens(x))}
        places = {TEXT: _text_places(context.shape[1], x.device), PICTURE: _picture_places(x, 0)}
        if pictures:
            rows[SEEN] = self.emb_in[SEEN](torch.cat([_tokens(latent) for latent in pictures], dim=1))
            places[SEEN] = torch.cat([_picture_places(latent, -number) for number, latent in enumerate(pictures, 1)])
        turns = {mode: self.pe_embedder(own[None]) for mode, own in places.items()}
        times = self._times(timestep, x.dtype, options)
        rows = {mode: self._early(mode, tokens, times, turns[mode], options) for mode, tokens in rows.items()}
        joint = self._joint(rows, times, torch.cat(list(turns.values()), dim=2), options)
        start = context.shape[1]
        last = self.final_layer[PICTURE](joint[:, start : start + x.shape[2] * x.shape[3]], times[PICTURE])
        result: torch.Tensor = last.transpose(1, 2).unflatten(2, x.shape[2:])
        return result

    def _times(self, timestep: torch.Tensor, dtype: torch.dtype, options: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The embedded time of each mode, B x 1 x C."""
        now, start = (self._embedded(self.time_in, own.to(dtype)) for own in (timestep, torch.zeros_like(timestep)))
        if self.ref_time_in is not None:
            after = self._embedded(self.ref_time_in, _next_time(timestep, options).to(dtype))
            now, start = now + after, start + after
        return {PICTURE: now, SEEN: start, TEXT: start}

    def _embedded(self, layers: MLPEmbedder, times: torch.Tensor) -> torch.Tensor:
        return layers(timestep_embedding(times, self.time_dim)[:, None])

    def _early(
        self, mode: str, tokens: torch.Tensor, times: Mapping[str, torch.Tensor], pe: torch.Tensor, options: Options
    ) -> torch.Tensor:
        """*tokens* of *mode* after the blocks of their own."""
        mod = self.early_stream_modulations[mode](F.silu(times[mode]))
        blocks: Any = self.txt_mode_blocks if mode == TEXT else self.content_mode_blocks[mode]
        for block in blocks:
            tokens = block(tokens, mod, pe, options)
        return tokens

    def _joint(
        self, rows: Mapping[str, torch.Tensor], times: Mapping[str, torch.Tensor], pe: torch.Tensor, options: Options
    ) -> torch.Tensor:
        """All tokens, the text's first, after the joint blocks."""
        mods = [self.single_stream_modulations[mode](F.silu(times[mode])).expand(-1, own.shape[1], -1) for mode, own in rows.items()]
        mod, joint = torch.cat(mods, dim=1), torch.cat(list(rows.values()), dim=1)
        options |= {"total_blocks": len(self.single_blocks), "block_type": "single"}
        options["img_slice"] = [rows[TEXT].shape[1], joint.shape[1]]
        for number, block in enumerate(self.single_blocks):
            options["block_index"] = number

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                return {"img": block(given["img"], given["vec"], given["pe"], given["transformer_options"])}

            given = {"img": joint, "vec": mod, "pe": pe, "transformer_options": options}
            joint = run_block(options, ("single_block", number), given, original)["img"]
        return joint


def _tokens(latent: torch.Tensor) -> torch.Tensor:
    """B x channels x rows x columns as B x tokens x channels."""
    return latent.flatten(2).transpose(1, 2)


def _text_places(count: int, device: torch.device) -> torch.Tensor:
    """T x 4: texts go along the last of four axes; the others are frame, row and column."""
    return F.pad(torch.arange(count, dtype=torch.float32, device=device)[:, None], (3, 0))


def _picture_places(latent: torch.Tensor, layer: int) -> torch.Tensor:
    """Tokens x 4 of a picture on the *layer*: 0 is the one that is made, the others are -1, -2 …"""
    axes = [torch.arange(size, dtype=torch.float32, device=latent.device) * STEP for size in latent.shape[2:]]
    return torch.cartesian_prod(torch.zeros(1, device=latent.device), *axes, torch.full((1,), float(layer), device=latent.device))


def _next_time(timestep: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
    """The time (B) of the step after *timestep*, as ``sample_sigmas`` of *options* say; 0 after the last, and where they say nothing.

    Samplers that also look between two steps go to the end of theirs.
    """
    steps = options.get("sample_sigmas")
    if steps is None:
        return torch.zeros_like(timestep)
    known = steps.to(timestep.device, torch.float32)
    earlier = known[None] < timestep.float()[:, None] - 1e-6
    return torch.where(earlier, known[None], 0.0).amax(dim=1).to(timestep)
