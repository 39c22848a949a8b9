"""What Qwen-Image 2.1's layers made of the tokens before the picture: the same at every step of a sampling run, so it is kept for the run.

Shapes: B batch, H heads, P tokens of the prefix, D width of a head.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import comfy.model_management

MOST = 4  # prefixes that are kept for one run: of its prompts, mostly two
LEVELS = {"int8": 127, "int4": 7}
KINDS = ("default", *LEVELS)
PLACES = ("auto", "gpu", "cpu", "off")


@dataclass(frozen=True, slots=True)
class Kept:
    """One tensor (… x D), as it was or in few levels; D is even."""

    values: torch.Tensor
    scales: torch.Tensor | None = None
    packed: bool = False

    @classmethod
    def of(cls, tensor: torch.Tensor, kind: str, device: torch.device) -> Kept:
        """*tensor* kept on *device*, each row of D in whole steps of its own where *kind* says so."""
        levels = LEVELS.get(kind)
        if levels is None:
            return cls(tensor.to(device, copy=True))
        scales = tensor.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(tensor.dtype).tiny) / levels
        steps = (tensor / scales).round().to(torch.int8)
        if levels == LEVELS["int4"]:
            steps = (steps[..., ::2] & 15) | (steps[..., 1::2] << 4)
        return cls(steps.to(device), scales.to(device), levels == LEVELS["int4"])

    def get(self, like: torch.Tensor) -> torch.Tensor:
        """The tensor, or what is left of it, where *like* is and in its dtype."""
        values = self.values.to(like.device, non_blocking=True)
        if self.scales is None:
            return values
        if self.packed:
            values = torch.stack(((values << 4) >> 4, values >> 4), dim=-1).flatten(-2)
        return values.to(like.dtype) * self.scales.to(like.device)


@dataclass(eq=False, slots=True)
class Prefix:
    """The keys and values of one prefix, block by block; *filled* once all are there."""

    marks: tuple[Any, ...]
    kind: str
    device: torch.device
    blocks: dict[int, tuple[Kept, Kept]] = field(default_factory=dict)
    filled: bool = False

    def put(self, number: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep those of the block *number* (B x H x P x D each)."""
        self.blocks[number] = (Kept.of(keys, self.kind, self.device), Kept.of(values, self.kind, self.device))

    def get(self, number: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the block *number*, where *like* is."""
        keys, values = self.blocks[number]
        return keys.get(like), values.get(like)


class PrefixCache:
    """The prefixes of one sampling run, which is told by the levels of noise that it is given; they are let go with these."""

    def __init__(self) -> None:
        self._run: weakref.ref[torch.Tensor] | None = None
        self._prefixes: list[Prefix] = []

    def free(self) -> None:
        """Forget all."""
        self._run, self._prefixes = None, []

    def select(self, options: Mapping[str, Any], marks: Sequence[Any], bytes_needed: int, device: torch.device) -> Prefix | None:
        """The prefix with *marks* (tensors and plain values), a new one where it is not known; None where none is to be kept.

        *options* are ``transformer_options``: their ``sample_sigmas`` tell the run, ``qwen_image21_cache`` where it is kept and how. Raises
        ``ValueError`` for a place or kind that is unknown.
        """
        wanted = options.get("qwen_image21_cache", {})
        place, kind = wanted.get("device", PLACES[0]), wanted.get("dtype", KINDS[0])
        if place not in PLACES or kind not in KINDS:
            raise ValueError(f"Qwen-Image 2.1's cache is kept on {', '.join(PLACES)} as {', '.join(KINDS)}, not on {place!r} as {kind!r}")
        run = options.get("sample_sigmas")
        if place == "off" or not isinstance(run, torch.Tensor):
            self.free()
            return None
        if self._run is None or self._run() is not run:
            self._run, self._prefixes = weakref.ref(run, lambda _: self.free()), []
        found = next((one for one in self._prefixes if one.kind == kind and _same(one.marks, marks)), None)
        if found is None:
            where = _where(place, kind, bytes_needed, device)
            found = Prefix(tuple(mark.clone() if isinstance(mark, torch.Tensor) else mark for mark in marks), kind, where)
            self._prefixes = [*self._prefixes, found][-MOST:]
        return found


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(
        (isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor) and mine.shape == theirs.shape and torch.equal(mine, theirs))
        or (not isinstance(mine, torch.Tensor) and not isinstance(theirs, torch.Tensor) and mine == theirs)
        for mine, theirs in zip(one, other)
    )


def _where(place: str, kind: str, bytes_needed: int, device: torch.device) -> torch.device:
    """The device that is asked for; ``auto``: the one that computes, where less than half of its free memory is taken."""
    share = {"default": 1.0, "int8": 0.5, "int4": 0.25}[kind]
    fits = place == "gpu" or (place == "auto" and 2 * share * bytes_needed < comfy.model_management.get_free_memory(device))
    return device if fits else torch.device("cpu")
