"""Which tensors may meet in one operation, with the messages that torch has for those that may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pretend.cards import Card
from pretend.operations import Operation
from pretend.tensors import CardTensor

TOGETHER = "Expected all tensors to be on the same device, but found at least two devices, {}! (in {})"


def check_devices(operation: Operation, cards: Sequence[CardTensor], hosts: Sequence[torch.Tensor], written: Sequence[Any]) -> None:
    """Raise ``RuntimeError`` unless all tensors are on one card, but for host scalars in elementwise operations."""
    first = cards[0].card
    if len(cards) > 1 and any(tensor.card is not first for tensor in cards):
        devices = {str(tensor.device) for tensor in cards}
        raise RuntimeError(TOGETHER.format(" and ".join(sorted(devices)), operation.name))
    if not hosts:
        return
    refused = [host for host in hosts if host.dim() > 0 or not operation.allows_scalars or any(host is one for one in written)]
    if refused:
        shapes = [tuple(host.shape) for host in refused]
        raise RuntimeError(TOGETHER.format(f"{first.device} and cpu", f"{operation.name}, host tensors {shapes}"))


def check_indices(operation: Operation, args: Sequence[Any]) -> None:
    """Raise ``RuntimeError`` for indices of another card, or of a card into a host tensor; host indices of card tensors are fine.

    Values that are written must be where the tensor is, single numbers apart.
    """
    subject, indices = args[0], args[1]
    for index in indices:
        if isinstance(index, CardTensor) and index.device != subject.device:
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor ({subject.device}), found {index.device}"
            )
    if operation.index_writes:
        values = args[2]
        if values.device != subject.device and values.dim() > 0:
            raise RuntimeError(TOGETHER.format(f"{subject.device} and {values.device}", operation.name))


def check_generators(given: Sequence[Any], card: Card | None, generators: dict[int, Any]) -> None:
    """Raise ``RuntimeError`` when one of the *given* generators is not of the device that draws."""
    for generator in given:
        entry = generators.get(generator._cdata)
        if (None if entry is None else entry.device) != (None if card is None else card.device):
            found, wanted = ("cpu" if entry is None else "cuda"), ("cpu" if card is None else "cuda")
            raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{found}'")
