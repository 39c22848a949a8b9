"""Copies between the host and cards, queued or waited for."""

from __future__ import annotations

from typing import Any

import torch

from pretend.cards import Card
from pretend.machine import Machine
from pretend.streams import check
from pretend.tensors import CardTensor

SMALL_BYTES = 64


def to_card(machine: Machine, card: Card, source: torch.Tensor, target: CardTensor, non_blocking: bool) -> None:
    """Account for a copy of the host tensor *source* into *target*, whose numbers are already there."""
    counters, locked = card.counters, machine.is_locked(source)
    machine.check_host(source, False, "a copy to the card")
    counters["h2d copies"] += 1
    counters["h2d bytes"] += source.nbytes
    counters["h2d locked bytes" if locked else "h2d pageable bytes"] += source.nbytes
    counters["h2d small"] += source.nbytes <= SMALL_BYTES
    if source.dtype != target.dtype:
        counters["h2d bytes converted on the host"] += source.nbytes
    queue = machine.queue(card.index)
    machine.copy(card, "h2d", source.nbytes, locked)
    check(target.block.uses, queue.clock, True, "a copy to the card")
    target.block.uses.note(queue, writes=True)
    if locked and non_blocking and source.dtype == target.dtype:
        uses = machine.host_uses(source, create=True)
        assert uses is not None
        uses.note(queue, writes=False)
    else:
        counters["h2d blocking"] += 1
        machine.scheduler.host_waits(queue.position(), queue.free_at_us)


def to_host(machine: Machine, card: Card, source: CardTensor, target: torch.Tensor, non_blocking: bool) -> None:
    """Account for a copy of *source* into the host tensor *target*. Queued, it may not be read before somebody has waited."""
    counters, queue = card.counters, machine.queue(card.index)
    counters["d2h copies"] += 1
    counters["d2h bytes"] += source.nbytes
    machine.copy(card, "d2h", source.nbytes, locked=non_blocking)
    check(source.block.uses, queue.clock, False, "a copy to the host")
    source.block.uses.note(queue, writes=False)
    if non_blocking:
        counters["d2h queued"] += 1
        uses = machine.host_uses(target, create=True)
        assert uses is not None
        uses.note(queue, writes=True)
    else:
        machine.host_waits_for(card, "copy to the host")


def between_cards(machine: Machine, source: CardTensor, target: CardTensor) -> None:
    """Account for a copy within or between cards; torch lets the two streams wait for each other."""
    origin, goal = machine.cards[source.device.index], machine.cards[target.device.index]
    machine.kernel(goal, "copy", source.nbytes)
    queue, other = machine.queue(goal.index), machine.queue(origin.index)
    if goal is not origin:
        goal.counters["d2d bytes"] += source.nbytes
        machine.scheduler.queue_waits(queue, other.position(), other.free_at_us)
        machine.scheduler.queue_waits(other, queue.position(), queue.free_at_us)
    check(source.block.uses, queue.clock, False, "a copy")
    check(target.block.uses, queue.clock, True, "a copy")
    source.block.uses.note(queue, writes=False)
    target.block.uses.note(queue, writes=True)


def account(machine: Machine, source: torch.Tensor, target: torch.Tensor, non_blocking: bool) -> None:
    """Account for a copy of *source*, which is done, into *target*; at least one of them is on a card."""
    if isinstance(source, CardTensor) and isinstance(target, CardTensor):
        between_cards(machine, source, target)
    elif isinstance(target, CardTensor):
        to_card(machine, machine.cards[target.device.index], source, target, non_blocking)
    elif isinstance(source, CardTensor):
        to_host(machine, machine.cards[source.device.index], source, target, non_blocking)


def flag(args: Any, kwargs: Any, position: int, name: str) -> bool:
    """A boolean that is given by position or by name."""
    return bool(args[position] if len(args) > position else kwargs.get(name, False))
