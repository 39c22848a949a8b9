"""Attention in which queries see some blocks of 64 keys only, by comfy-kitchen: for long sequences, as those of videos.

Ways to choose the blocks: by how much they stand out for a query's block ("sol-attn"), the best share of them ("sla"), or the best share of
a video's cubes, as FastVideo's models are trained ("vsa"), whose layers may also give gates for attention among whole blocks.
Shapes: B batch, H heads, N rows of the sequence, D values of a head.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from comfy.quantisation import kitchen

log = logging.getLogger(__name__)

BLOCK = 64
CUBE = (4, 4, 4)  # latent frames, lines and columns of patches that are a block of a video
HEAD = 128  # values of a head that comfy-kitchen takes
SCORE_BYTES = 1 << 30  # of one call on the host, where scores of all rows are held
LARGEST_SCORE_BYTES = 4 << 30  # of one head, beyond which comfy-kitchen refuses
LAYOUT, GATE = "minimax_h3_layout", "minimax_h3_gate"

Options = Mapping[str, Any]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Rows of a sequence in blocks of their own kind: *rows* gives the row of each place (-1: none), *places* the place of each row.

    The first *before* blocks are of what stands before the video; *lengths* are how many rows each block has, which come first in it.
    """

    rows: torch.Tensor
    places: torch.Tensor
    lengths: torch.Tensor
    before: int


@functools.lru_cache(maxsize=4)
def tiling(grid: tuple[int, int, int], segments: tuple[tuple[int, int, str], ...], device: torch.device) -> Tiling:
    """That of a sequence with a video of *grid* frames, lines and columns of patches, in cubes, and with other *segments* in a row.

    Raises ``ValueError`` where the video has another number of rows.
    """
    tiles, before = [], 0
    for start, stop, kind in segments:
        if kind != "video":
            filled = torch.full((-(-(stop - start) // BLOCK) * BLOCK,), -1, dtype=torch.int64)
            filled[: stop - start] = torch.arange(start, stop)
            before += len(filled) // BLOCK
            tiles.append(filled.view(-1, BLOCK))
            continue
        if torch.Size(grid).numel() != stop - start:
            raise ValueError(f"a video of {stop - start} rows is not one of {grid} frames, lines and columns, so it has no cubes")
        whole = torch.full([-(-length // side) * side for length, side in zip(grid, CUBE)], -1, dtype=torch.int64)
        whole[: grid[0], : grid[1], : grid[2]] = torch.arange(start, stop).view(grid)
        for axis, side in enumerate(CUBE):
            whole = whole.unflatten(2 * axis, (-1, side))
        cubes = whole.permute(0, 2, 4, 1, 3, 5).reshape(-1, BLOCK)
        tiles.append(cubes.gather(1, (cubes < 0).int().argsort(dim=1, stable=True)))
    blocks = torch.cat(tiles).to(device)
    rows = blocks.flatten()
    there = (rows >= 0).nonzero().flatten()
    places = torch.empty(len(there), dtype=torch.int64, device=device)
    places[rows[there]] = there
    return Tiling(rows, places, (blocks >= 0).sum(1).int(), before)


@dataclass(frozen=True)
class SparseAttention:
    """An ``optimized_attention_override``. Calls that it does not fit go to *previous*, the override before it, or stay as they are.

    *tau* ("sol-attn") or *share* ("sla", "vsa") choose blocks between the levels of noise *highest* and *lowest*. MiniMax H3's rows before
    the video are seen by all queries if *sinks* is "exact_kv" or "exact_kv_and_rows"; in the latter the sound's queries see all.
    """

    method: str
    tau: float
    share: float
    highest: float
    lowest: float
    least_rows: int
    dense_blocks: frozenset[int]
    sinks: str
    extra_rows: int
    is_told: bool
    previous: Callable[..., torch.Tensor] | None = None

    def __call__(self, func: Any, q: Any, k: Any, v: Any, heads: int, mask: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Attention as the functions of ``attention.py`` compute it, with *func* the one that is overridden."""
        options = kwargs.get("transformer_options") or {}
        split = kwargs.get("skip_reshape", False)
        parts = (q, k, v) if split else tuple(part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        why = "it has a mask" if mask is not None else self._why_dense(parts, options)
        if self.is_told:
            _tell(why or self.method, parts[0].shape[2])
        if why is not None:
            if self.previous is None:
                return func(q, k, v, heads, mask, *args, **kwargs)
            return self.previous(func, q, k, v, heads, mask, *args, **kwargs)
        out = self._tiled(parts, options) if self.method == "vsa" else self._routed(parts, options, kwargs.get("scale"))
        return out if kwargs.get("skip_output_reshape", False) else out.transpose(1, 2).flatten(2)

    def _why_dense(self, parts: Sequence[torch.Tensor], options: Options) -> str | None:
        """Why a call is computed densely; None where it is not."""
        query = parts[0]
        rows = query.shape[2]
        sigmas = options.get("sigmas")
        if sigmas is not None and not self.highest >= float(sigmas[0]) >= self.lowest:
            return "the level of noise is outside of start and end"
        if rows < self.least_rows:
            return "it has fewer rows than min_tokens"
        if options.get("block_index") in self.dense_blocks:
            return "its block is one of dense_blocks"
        if any(part.shape != query.shape or part.dtype != query.dtype for part in parts):
            return "keys are others than queries"
        if self.method == "vsa" and _layout(options, rows) is None:
            return "it is not the attention of a whole sequence"
        return _why_not_here(query)

    def _sinks(self, options: Options, rows: int) -> tuple[Span, Span]:
        """(blocks of keys that all queries see, blocks of queries that see all)."""
        layout = None if self.sinks == "off" else _layout(options, rows)
        spans = {} if layout is None else {kind: (start, stop) for start, stop, kind in layout.segments}
        start = spans.get("video", (0, 0))[0]
        keys = (0, -(-start // BLOCK))
        if self.sinks != "exact_kv_and_rows" or not start:
            return keys, (0, 0)
        return keys, (spans["audio"][0] // BLOCK, keys[1]) if "audio" in spans else keys

    def _routed(self, parts: Sequence[torch.Tensor], options: Options, scale: float | None) -> torch.Tensor:
        """B x H x N x D."""
        keys, queries = self._sinks(options, parts[0].shape[2])
        chosen: dict[str, Any] = {
            "tau": self.tau,
            "topk_ratio": 0.0 if self.method == "sol-attn" else self.share,
            "token_aug": self.extra_rows,
        }
        return _attention(parts, sink_blocks=list(keys), sink_q=list(queries), scale=scale, **chosen)

    def _tiled(self, parts: Sequence[torch.Tensor], options: Options) -> torch.Tensor:
        """1 x H x N x D. What stands before the video is seen by all, and sees all."""
        layout = options[LAYOUT]
        _, frames, height, width, _ = layout.signature
        plan = tiling((frames, height // 2, width // 2), tuple(layout.segments), parts[0].device)
        tiled = [_in_tiles(part, plan) for part in parts]
        gate = options.get(GATE)
        if gate is not None:
            gate = _in_tiles(gate().unflatten(-1, (parts[0].shape[1], -1)).transpose(0, 1)[None], plan)
        sinks = [0, plan.before]
        found = _attention(tiled, gate, sink_blocks=sinks, sink_q=sinks, topk_ratio=self.share, tail=False, block_len=plan.lengths)
        return found[:, :, plan.places]


def _layout(options: Options, rows: int) -> Any:
    layout = options.get(LAYOUT)
    return layout if layout is not None and layout.seq_len == rows else None


def _in_tiles(part: torch.Tensor, plan: Tiling) -> torch.Tensor:
    tiled = part[:, :, plan.rows.clamp(min=0)]
    return tiled * (plan.rows >= 0)[:, None].to(tiled.dtype)


def _why_not_here(query: torch.Tensor) -> str | None:
    """Why comfy-kitchen cannot compute it on this device."""
    if not kitchen.is_installed():
        return f"comfy-kitchen is not installed ({kitchen.INSTALL})"
    kitchen.layouts()  # chooses kernels
    if query.shape[-1] != HEAD:
        return f"heads have {query.shape[-1]} values, and not {HEAD}"
    if query.device.type == "cpu":
        is_large = len(query) * query.shape[2] ** 2 * 4 > LARGEST_SCORE_BYTES
        return "the sequence is too long for the host" if is_large else None
    has_kernel = importlib.import_module("comfy_kitchen").sol_attn_is_available(query.device)
    return None if has_kernel else "comfy-kitchen has no kernel for this card"


def _attention(parts: Sequence[torch.Tensor], gate: torch.Tensor | None = None, **chosen: Any) -> torch.Tensor:
    """comfy-kitchen's sparse attention of B x H x N x D; on the host some heads at a time, as it holds the scores of all rows there."""
    attention = importlib.import_module("comfy_kitchen").sol_attn
    query, *others = (None if part is None else part.transpose(1, 2) for part in (*parts, gate))
    assert query is not None, "parts are queries, keys and values"
    if query.device.type != "cpu":
        narrow = [part.to(torch.bfloat16) if part is not None and part.dtype == torch.float32 else part for part in (query, *others)]
        return attention(*narrow[:3], coarse_gate=narrow[3], **chosen).to(query.dtype).transpose(1, 2)
    step = max(1, SCORE_BYTES // (len(query) * query.shape[1] ** 2 * 4))
    found = []
    for first in range(0, query.shape[2], step):
        some = [None if part is None else part[:, :, first : first + step].contiguous() for part in (query, *others)]
        found.append(attention(*some[:3], coarse_gate=some[3], **chosen))
    return torch.cat(found, dim=2).transpose(1, 2)


@functools.lru_cache(maxsize=256)
def _tell(how: str, rows: int) -> None:
    """Log, once for each kind of call, how it is computed."""
    log.info("Sparse attention, %d rows: %s", rows, how)
