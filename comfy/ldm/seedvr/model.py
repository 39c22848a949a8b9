"""SeedVR2's network in ComfyUI's tree, published weight names and hooks.

Shapes: B batch, C channels of a latent, F frames, H rows, W columns, L places (of one frame and 2 x 2 values), T tokens of text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.families.timestep_embedding
from comfy.dit.network import DiffusionTransformer, run_block
from comfy.ldm.seedvr.layers import LAYERS, MLP, AdaSingle, MMModule, NaMMSRTransformerBlock, NaSwinAttention, Options, Seen, SwiGLUMLP
from comfy.ldm.seedvr.windows import Size, rotations, turns_after_text, turns_in_picture, windows_of

__all__ = ["MLP", "AdaSingle", "MMModule", "NaDiT", "NaMMSRTransformerBlock", "NaSwinAttention", "SwiGLUMLP", "TimeEmbedding"]

CHANNELS, TEXT_WIDTH = 16, 5120
POSITIVE, NEGATIVE = 58, 64  # tokens of the texts that files hold
PATCH = 2  # rows and columns of a place
SINES = 256
IN_PICTURE, AFTER_TEXT = "rope3d", "mmrope3d"  # how places are turned


class TimeEmbedding(torch.nn.Module):
    """Times as shifts, scales and gates."""

    def __init__(self, dim: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.proj_in = operations.Linear(SINES, dim, **kept)
        self.proj_hid = operations.Linear(dim, dim, **kept)
        self.proj_out = operations.Linear(dim, 6 * dim, **kept)

    def forward(self, timestep: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """B (0 to 1000) to B x 1 x dim x 2 x 3."""
        cosines, sines = comfy.families.timestep_embedding.timestep_embedding(timestep, SINES).chunk(2, dim=-1)
        x = self.proj_in(torch.cat((sines, cosines), dim=-1).to(dtype))
        for layer in (self.proj_hid, self.proj_out):
            x = layer(torch.nn.functional.silu(x))
        return x.reshape(len(x), 1, -1, len(LAYERS), 3)


class _Patches(torch.nn.Module):
    """A linear layer for places."""

    def __init__(self, inner: int, outer: int, operations: Any, **kept: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(inner, outer, **kept)


class NaPatchIn(_Patches):
    """Values to places."""

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """B x C x F x H x W to B x L x width."""
        cells = video.unflatten(4, (-1, PATCH)).unflatten(3, (-1, PATCH))
        return self.proj(cells.permute(0, 2, 3, 5, 4, 6, 1).flatten(4).flatten(1, 3))


class NaPatchOut(_Patches):
    """Places to values."""

    def forward(self, places: torch.Tensor, size: Size) -> torch.Tensor:
        """B x L x width of a video of *size* places to B x C x F x H x W."""
        cells = self.proj(places).unflatten(1, size).unflatten(-1, (PATCH, PATCH, -1))
        return cells.permute(0, 6, 1, 2, 4, 3, 5).flatten(5).flatten(3, 4)


class NaDiT(DiffusionTransformer):
    """The network. ``patches_replace["dit"]`` of ``transformer_options`` replaces ``("block", number)``; a replacement gets places
    (``vid``, B x L x width), tokens (``txt``), the times (``emb``), what the block sees (``seen``) and ``transformer_options``.

    *mm_layers*: how many blocks have weights for text of its own; the others share those of the video.
    """

    PATCH_BLOCKS = {"block": "blocks"}

    def __init__(
        self,
        norm_eps: float = 1e-5,
        num_layers: int = 32,
        mlp_type: str = "swiglu",
        vid_in_channels: int = 2 * CHANNELS + 1,
        vid_out_channels: int = CHANNELS,
        vid_dim: int = 2560,
        txt_in_dim: int = TEXT_WIDTH,
        heads: int = 20,
        head_dim: int = 128,
        mm_layers: int = 10,
        rope_dim: int = 128,
        rope_type: str = AFTER_TEXT,
        vid_out_norm: bool | None = None,
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.dtype, self.rope_type, self.rope_dim, self.norm_eps = dtype, rope_type, rope_dim, norm_eps
        self.positive_conditioning = torch.nn.Parameter(torch.empty(POSITIVE, TEXT_WIDTH, **kept))
        self.negative_conditioning = torch.nn.Parameter(torch.empty(NEGATIVE, TEXT_WIDTH, **kept))
        self.vid_in = NaPatchIn(vid_in_channels * PATCH**2, vid_dim, operations, **kept)
        self.txt_in = operations.Linear(txt_in_dim, vid_dim, **kept)
        self.emb_in = TimeEmbedding(vid_dim, operations, **kept)
        sizes: Any = {"dim": vid_dim, "heads": heads, "head_dim": head_dim, "eps": norm_eps, "mlp_type": mlp_type, "operations": operations}
        self.blocks = torch.nn.ModuleList(
            NaMMSRTransformerBlock(
                shared_weights=number >= mm_layers, is_last_layer=number == num_layers - 1 and rope_type == AFTER_TEXT, **sizes, **kept
            )
            for number in range(num_layers)
        )
        self.vid_out = NaPatchOut(vid_dim, vid_out_channels * PATCH**2, operations, **kept)
        self.vid_out_norm: Any = None
        if vid_out_norm:
            self.vid_out_norm = operations.RMSNorm(vid_dim, eps=norm_eps, **kept)
            self.vid_out_ada = AdaSingle(vid_dim, ("out",), gates=False, **kept)

    def seen(self, size: Size, text: int, device: torch.device) -> tuple[Seen, Seen]:
        """What blocks with even numbers see of a video of *size* places beside *text* tokens, and those with odd ones."""
        both = []
        for shifted in (False, True):
            windows = windows_of(size, shifted, device)
            turned: list[tuple[torch.Tensor, torch.Tensor | None]] = []
            for own in windows:
                if self.rope_type == AFTER_TEXT:
                    places, tokens = (rotations(one) for one in turns_after_text(own.size, text, self.rope_dim, device))
                    turned.append((places, tokens))
                else:
                    turned.append((rotations(turns_in_picture(own.size, self.rope_dim, device)), None))
            both.append(Seen(windows, turned))
        return both[0], both[1]

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, timestep, context, condition, options, options=options, **kwargs)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """*x* B x 16 x F x H x W, *timestep* B (0 to 1000), *context* B x T x 5120 (None: the file's positive text), *condition* B x 17 x F
        x H x W: the latent of what is restored, and 1 where there is one. Raises ``ValueError`` for other shapes.
        """
        _check(x, condition)
        size: Size = (x.shape[2], x.shape[3] // PATCH, x.shape[4] // PATCH)
        text = self.positive_conditioning[None].expand(len(x), -1, -1) if context is None or not context.numel() else context
        txt = self.txt_in(text.to(x.dtype))
        vid = self.vid_in(torch.cat((x, condition.to(x)), dim=1)) if condition is not None else x
        times = self.emb_in(timestep, x.dtype)
        vid = self._through_blocks(vid, txt, times, self.seen(size, txt.shape[1], x.device), dict(transformer_options or {}))
        if self.vid_out_norm is not None:
            # As it was trained: with the times of the blocks' attention, which ComfyUI finds among what it keeps.
            vid = self.vid_out_ada.before(self.vid_out_norm(vid), "out", times[..., 0, :])
        return self.vid_out(vid, size)

    def _through_blocks(
        self, vid: torch.Tensor, txt: torch.Tensor, times: torch.Tensor, seen: tuple[Seen, Seen], options: Options
    ) -> torch.Tensor:
        options |= {"total_blocks": len(self.blocks), "block_type": "single"}
        for number, block in enumerate(self.blocks):
            options["block_index"] = number

            def original(given: Mapping[str, Any], block: torch.nn.Module = block) -> dict[str, Any]:
                made = block(*(given[name] for name in ("vid", "txt", "emb", "seen", "transformer_options")))
                return dict(zip(("vid", "txt"), made))

            given = {"vid": vid, "txt": txt, "emb": times, "seen": seen[number % 2], "transformer_options": options}
            made = run_block(options, ("block", number), given, original)
            vid, txt = made["vid"], made["txt"]
        return vid


def _check(x: torch.Tensor, condition: torch.Tensor | None) -> None:
    if condition is None:
        raise ValueError("SeedVR2 needs the latent of what it restores; use the node SeedVR2Conditioning")
    if x.ndim != 5 or x.shape[1] != CHANNELS or x.shape[3] % PATCH or x.shape[4] % PATCH:
        raise ValueError(
            f"SeedVR2 takes latents of B x {CHANNELS} x frames x an even number of rows x one of columns, not {list(x.shape)}; "
            "use the node SeedVR2Preprocess before the pictures are encoded"
        )
    if condition.shape[1] != CHANNELS + 1 or condition.shape[2:] != x.shape[2:]:
        raise ValueError(f"SeedVR2's conditioning is of {list(condition.shape)}, the latent of {list(x.shape)}: encode both alike")
