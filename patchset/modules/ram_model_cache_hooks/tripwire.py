"""Notices when somebody changed the weights of a cached model for good: a sample of each tensor, compared later.

A clone's patches are undone before the comparison. What is left is code that changes a module it was handed as if it were its own
(``.half()``, merging weights in place): such a model must not be handed out again.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch

SAMPLE_ELEMENTS = 16
Sample = tuple[torch.dtype, bytes]


class Tripwire:
    """Samples by patcher, gone with it. Costs some 10 microseconds per tensor; used by one thread at a time per patcher."""

    def __init__(self) -> None:
        self._samples: weakref.WeakKeyDictionary[Any, dict[str, Sample]] = weakref.WeakKeyDictionary()

    def note(self, patcher: Any) -> None:
        """Remember the weights of *patcher* as they are."""
        self._samples[patcher] = dict(_sampled(patcher.model))

    def check(self, patcher: Any) -> None:
        """Raise ``RuntimeError`` when a weight differs from what was noted. Weights on a device now are not looked at."""
        noted = self._samples.get(patcher)
        if noted is None:
            return
        changed = [name for name, sample in _sampled(patcher.model) if noted.get(name, sample) != sample]
        if changed:
            some = ", ".join(changed[:3])
            raise RuntimeError(f"{len(changed)} of its weights were changed in place by code that did not copy the model ({some})")


def _sampled(module: Any) -> Iterator[tuple[str, Sample]]:
    """(name, dtype and bytes of the last row's beginning) of each ordinary parameter in host memory. Buffers may change as models run."""
    for name, tensor in module.named_parameters():
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        if plain and tensor.device.type == "cpu" and tensor.numel() and tensor.layout == torch.strided:
            row = tensor.detach()
            while row.ndim > 1:
                row = row[-1]
            yield name, (row.dtype, bytes(row.reshape(-1)[:SAMPLE_ELEMENTS].contiguous().view(torch.uint8).numpy()))
