"""What a program asks ``torch.cuda`` for, answered by the pretend machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from pretend.generators import generator_class
from pretend.machine import Machine
from pretend.mode import CardMode
from pretend.page_locks import Runtime
from pretend.tensors import CardTensor
from pretend.torch_queues import queue_names

CAPABILITY = (8, 9)
NAME = "Pretend"


class Names:
    """The replacements, each under torch's own name."""

    def __init__(self, machine: Machine, mode: CardMode) -> None:
        self._machine, self._mode = machine, mode

    def _index(self, device: Any = None) -> int:
        if device is None:
            return self._machine.current_index()
        card = self._machine.cards[device] if isinstance(device, int) else self._machine.card_for(device)
        if card is None:
            raise ValueError(f"Expected a cuda device, but got: {device}")
        return card.index

    def memory(self) -> dict[str, Any]:
        cards, index = self._machine.cards, self._index

        def mem_get_info(device: Any = None) -> tuple[int, int]:
            card = cards[index(device)]
            return card.capacity_bytes - max(card.reserved_bytes(), card.used_bytes()), card.capacity_bytes

        def memory_stats(device: Any = None) -> dict[str, int]:
            card = cards[index(device)]
            used, reserved = card.used_bytes(), card.reserved_bytes()
            now = {"reserved": reserved, "active": used, "allocated": used}
            peak = {"reserved": reserved, "active": card.peak_bytes, "allocated": card.peak_bytes}
            counted = {f"{kind}_bytes.all.current": size for kind, size in now.items()}
            return counted | {f"{kind}_bytes.all.peak": size for kind, size in peak.items()} | {"num_ooms": card.refused}

        def empty_cache() -> None:
            for card in cards:
                card.trim()

        locks = self._machine.page_locks
        return {
            "mem_get_info": mem_get_info,
            "memory_stats": memory_stats,
            "empty_cache": empty_cache,
            "memory_allocated": lambda device=None: cards[index(device)].used_bytes(),
            "memory_reserved": lambda device=None: cards[index(device)].reserved_bytes(),
            "max_memory_allocated": lambda device=None: cards[index(device)].peak_bytes,
            "reset_peak_memory_stats": lambda device=None: cards[index(device)].forget_peak(),
            "memory_summary": lambda *_, **__: "a pretend card",
            "ipc_collect": lambda: None,
            "cudart": lambda: Runtime(locks, mem_get_info),
            "get_allocator_backend": lambda: "native",
        }

    def identity(self) -> dict[str, Any]:
        machine = self._machine

        def properties(device: Any = None) -> SimpleNamespace:
            total = machine.cards[self._index(device)].capacity_bytes
            major, minor = CAPABILITY
            return SimpleNamespace(
                total_memory=total, name=NAME, major=major, minor=minor, multi_processor_count=80, gcnArchName="", is_integrated=False
            )

        @contextlib.contextmanager
        def device(chosen: Any) -> Iterator[None]:
            before = machine.current_index()
            machine.choose(self._index(chosen))
            try:
                yield
            finally:
                machine.choose(before)

        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "init": lambda: None,
            "device_count": lambda: len(machine.cards),
            "current_device": machine.current_index,
            "set_device": lambda chosen: machine.choose(self._index(chosen)),
            "device": device,
            "get_device_properties": properties,
            "get_device_capability": lambda device=None: CAPABILITY,
            "get_device_name": lambda device=None: NAME,
            "get_arch_list": lambda: ["sm_89"],
            "is_bf16_supported": lambda *_, **__: True,
            "manual_seed": lambda seed: None,
            "manual_seed_all": lambda seed: None,
        }

    def queues(self) -> dict[str, Any]:
        return queue_names(self._machine, self._index)

    def elsewhere(self) -> list[tuple[Any, str, Any]]:
        """(object, name, replacement) outside ``torch.cuda``."""
        machine = self._machine

        def is_pinned(tensor: torch.Tensor, device: Any = None) -> bool:
            return not isinstance(tensor, CardTensor) and machine.is_locked(tensor)

        def pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
            return self._mode._lock_copy(None, (tensor,), {})

        return [
            (torch, "Generator", generator_class(machine)),
            (torch.Tensor, "is_pinned", is_pinned),
            (torch.Tensor, "pin_memory", pin_memory),
            (torch.Tensor, "record_stream", lambda tensor, stream: self._mode._record_stream(None, (tensor, stream), {})),
            (torch.version, "cuda", "12.8"),
            (torch.backends.cudnn, "version", lambda: 91600),
            (CardTensor, "run", staticmethod(self._mode.run)),
        ]
