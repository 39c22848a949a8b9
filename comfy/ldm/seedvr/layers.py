"""Layers and blocks of SeedVR2's network, in ComfyUI's published weight names.

Shapes: B batch, L places of a video, T tokens of text, C values of a place or token, W windows of one size, N places of one, D values of a
head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.flux.math
import comfy.ldm.modules.attention
import comfy.ops
from comfy.ldm.seedvr.windows import Windows

Options = dict[str, Any]
Make = Callable[[], torch.nn.Module]

WIDER = 4  # the feed-forward layer, than a place
MULTIPLE = 256  # of which the values of a gated one are
PLACES_AT_ONCE = 8192  # that the feed-forward layer takes
LAYERS = ("attn", "mlp")  # what is modulated


class MMModule(torch.nn.Module):
    """A layer for both kinds, video and text: one that they share (``all``), or one each (``vid``, ``txt``), of which the text's may be
    missing.
    """

    def __init__(self, make: Make, shared_weights: bool, vid_only: bool = False) -> None:
        super().__init__()
        self.shared_weights, self.vid_only = shared_weights, vid_only
        if shared_weights:
            self.all = make()
        else:
            self.vid = make()
            self.txt = None if vid_only else make()

    @property
    def of_video(self) -> Any:
        """The layer for places."""
        return self.all if self.shared_weights else self.vid

    @property
    def of_text(self) -> Any:
        """The layer for tokens; None where they stay as they are."""
        return None if self.vid_only else self.all if self.shared_weights else self.txt

    def forward(self, vid: torch.Tensor, txt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each through its layer."""
        return self.of_video(vid), txt if self.of_text is None else self.of_text(txt)


class MLP(torch.nn.Module):
    """A wider layer and a narrower one."""

    def __init__(self, dim: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.proj_in = operations.Linear(dim, dim * WIDER, **kept)
        self.proj_out = operations.Linear(dim * WIDER, dim, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        return self.proj_out(F.gelu(self.proj_in(x), approximate="tanh"))


class SwiGLUMLP(torch.nn.Module):
    """The same, gated, with fewer values."""

    def __init__(self, dim: int, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        inner = -(-(2 * dim * WIDER // 3) // MULTIPLE) * MULTIPLE
        self.proj_in_gate = operations.Linear(dim, inner, bias=False, **kept)
        self.proj_in = operations.Linear(dim, inner, bias=False, **kept)
        self.proj_out = operations.Linear(inner, dim, bias=False, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        return self.proj_out(F.silu(self.proj_in_gate(x)) * self.proj_in(x))


MLPS = {"normal": MLP, "swiglu": SwiGLUMLP}


class AdaSingle(torch.nn.Module):
    """Values of a block's own that are added to the shifts, scales and gates of the time."""

    def __init__(self, dim: int, layers: Sequence[str] = LAYERS, gates: bool = True, **kept: Any) -> None:
        super().__init__()
        for layer in layers:
            for part in ("shift", "scale", "gate") if gates else ("shift", "scale"):
                self.register_parameter(f"{layer}_{part}", torch.nn.Parameter(torch.empty(dim, **kept)))

    def before(self, x: torch.Tensor, layer: str, times: torch.Tensor) -> torch.Tensor:
        """*x* (B x … x C) scaled and shifted for *layer*; *times*: B x 1 x C x 3."""
        shift, scale = (self._sum(x, layer, part, times[..., number]) for number, part in enumerate(("shift", "scale")))
        return torch.addcmul(shift, x, scale)

    def after(self, x: torch.Tensor, layer: str, times: torch.Tensor) -> torch.Tensor:
        """*x* gated."""
        return x * self._sum(x, layer, "gate", times[..., 2])

    def _sum(self, x: torch.Tensor, layer: str, part: str, time: torch.Tensor) -> torch.Tensor:
        return time + comfy.ops.cast_to_input(getattr(self, f"{layer}_{part}"), x)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a block looks through: windows, and for those of each size the rotations of places (N x pairs x 2 x 2) and tokens, if any."""

    windows: Sequence[Windows]
    turned: Sequence[tuple[torch.Tensor, torch.Tensor | None]]


class NaSwinAttention(torch.nn.Module):
    """Attention in windows of the video, in each of which the text stands as well; what comes of it is the mean of all of them."""

    def __init__(self, dim: int, heads: int, head_dim: int, eps: float, shared: bool, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        inner = heads * head_dim
        self.proj_qkv = MMModule(lambda: operations.Linear(dim, 3 * inner, bias=False, **kept), shared)
        self.proj_out = MMModule(lambda: operations.Linear(inner, dim, **kept), shared)
        self.norm_q = MMModule(lambda: operations.RMSNorm(head_dim, eps=eps, **kept), shared)
        self.norm_k = MMModule(lambda: operations.RMSNorm(head_dim, eps=eps, **kept), shared)

    def forward(self, vid: torch.Tensor, txt: torch.Tensor, seen: Seen, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
        """*vid* B x L x C, *txt* B x T x C."""
        video, text = (part.unflatten(-1, (3, self.heads, self.head_dim)).unbind(2) for part in self.proj_qkv(vid, txt))
        queries, keys = self.norm_q(video[0], text[0]), self.norm_k(video[1], text[1])
        made, told = torch.empty_like(video[0]), torch.zeros_like(text[0], dtype=torch.float32)
        for windows, turned in zip(seen.windows, seen.turned):
            query, key = (self._in(windows, pair[0], pair[1], turned) for pair in (queries, keys))
            out = self._attended(query, key, self._in(windows, video[2], text[2], None), options)
            places = windows.places.shape[1]
            out = out.unflatten(0, (len(vid), -1)).unflatten(-1, (self.heads, -1))
            made[:, windows.places.flatten()] = out[:, :, :places].flatten(1, 2)
            told += out[:, :, places:].sum(dim=1, dtype=torch.float32)
        count = sum(len(windows.places) for windows in seen.windows)
        return self.proj_out(made.flatten(2), (told / count).to(txt.dtype).flatten(2))

    def _in(self, windows: Windows, vid: torch.Tensor, txt: torch.Tensor, turned: Any) -> torch.Tensor:
        """*vid* (B x L x heads x D) in *windows*, each followed by *txt*: (B W) x heads x (N + T) x D."""
        places = vid[:, windows.places].transpose(2, 3)
        tokens = txt.transpose(1, 2)
        if turned is not None:
            places, tokens = _turned(places, turned[0]), _turned(tokens, turned[1])
        tokens = tokens[:, None].expand(-1, len(windows.places), -1, -1, -1)
        return torch.cat((places, tokens), dim=3).flatten(0, 1)

    def _attended(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: Options) -> torch.Tensor:
        return comfy.ldm.modules.attention.optimized_attention(
            query, key, value, self.heads, skip_reshape=True, transformer_options=options
        )


def _turned(x: torch.Tensor, matrices: torch.Tensor | None) -> torch.Tensor:
    """*x* (… x N x D) with as many of its first values turned as *matrices* (N x pairs x 2 x 2) are for."""
    if matrices is None:
        return x
    count = 2 * matrices.shape[1]
    return torch.cat((comfy.ldm.flux.math.apply_rope1(x[..., :count], matrices), x[..., count:]), dim=-1)


class NaMMSRTransformerBlock(torch.nn.Module):
    """Attention in windows and a feed-forward layer for places and tokens; *is_last_layer*: the latter for places alone."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        eps: float,
        mlp_type: str,
        shared_weights: bool,
        is_last_layer: bool,
        operations: Any = None,
        **kept: Any,
    ) -> None:
        super().__init__()
        self.eps, self.is_last_layer = eps, is_last_layer
        self.attn = NaSwinAttention(dim, heads, head_dim, eps, shared_weights, operations, **kept)
        self.mlp = MMModule(lambda: MLPS[mlp_type](dim, operations, **kept), shared_weights, is_last_layer)
        self.ada = MMModule(lambda: AdaSingle(dim, **kept), shared_weights, is_last_layer)

    def forward(
        self, vid: torch.Tensor, txt: torch.Tensor, times: torch.Tensor, seen: Seen, options: Options
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """*vid* B x L x C, *txt* B x T x C, *times* B x 1 x C x 2 x 3 (of attention and the other layer: shift, scale, gate)."""
        made = self.attn(*self._before((vid, txt), "attn", times), seen, options)
        vid, txt = (kept + added for kept, added in zip((vid, txt), self._after(made, "attn", times)))
        before = self._before((vid, txt), "mlp", times)
        fed = torch.cat([self.mlp.of_video(part) for part in before[0].split(PLACES_AT_ONCE, dim=1)], dim=1)
        told = before[1] if self.mlp.of_text is None else self.mlp.of_text(before[1])
        fed, told = self._after((fed, told), "mlp", times)
        return vid + fed, txt + told

    def _before(self, both: tuple[torch.Tensor, torch.Tensor], layer: str, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vid, txt = (F.rms_norm(part, part.shape[-1:], eps=self.eps) for part in both)
        own = times[..., LAYERS.index(layer), :]
        vid = self.ada.of_video.before(vid, layer, own)
        return vid, txt if self.ada.of_text is None else self.ada.of_text.before(txt, layer, own)

    def _after(self, both: tuple[torch.Tensor, torch.Tensor], layer: str, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vid, txt = both
        own = times[..., LAYERS.index(layer), :]
        vid = self.ada.of_video.after(vid, layer, own)
        return vid, txt if self.ada.of_text is None else self.ada.of_text.after(txt, layer, own)
