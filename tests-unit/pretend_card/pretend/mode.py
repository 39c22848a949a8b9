"""Every operation of torch, on its way to the pretend cards."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from pretend import copies, rules
from pretend.cards import Card
from pretend.machine import Machine
from pretend.nested import Operands, changed, leaves
from pretend.operations import Operation
from pretend.streams import check
from pretend.tensors import CardTensor

aten = torch.ops.aten
CPU = torch.device("cpu")
_entered = threading.local()


class CardMode(TorchDispatchMode):
    """Runs operations with or on tensors of *machine*'s cards. Entered in each thread that makes or moves such tensors."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """One operation: checked, computed on the host, accounted for."""
        operation = Operation.of(func)
        if operation.own_rule is not None:
            return getattr(self, operation.own_rule)(func, args, kwargs)
        operands = Operands(args, kwargs)
        if operands.is_of_host() and not kwargs.get("pin_memory") and self._none_in_use(operands.hosts):
            return operation.run(*args, **kwargs)
        if operation.is_composite:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return self._compute(func, operation, operands, args, kwargs)

    def _none_in_use(self, tensors: list[torch.Tensor]) -> bool:
        """Whether queued copies use the memory of none of these tensors of the host: what is done with them needs no check then."""
        machine = self._machine
        return not machine._host_uses or not any(machine.host_uses(tensor) is not None for tensor in tensors)

    def _compute(self, func: Any, operation: Operation, operands: Operands, args: Any, kwargs: Any) -> Any:
        machine, cards = self._machine, operands.cards
        written = leaves(operation.written_operands(args, kwargs)) if operation.writes or operation.written_names else []
        goal = self._goal(operation, cards, kwargs)
        if operands.generators:
            rules.check_generators(operands.generators, goal, machine.generators)
        if not cards and goal is None:
            return self._on_host(func, operands.hosts, written, args, kwargs)
        if operation.indexes or operation.index_writes:
            rules.check_indices(operation, args)
            self._count_indices(args)
        elif cards:
            rules.check_devices(operation, cards, operands.hosts, written)
        named = {name: changed(value, _inner) for name, value in kwargs.items() if name != "pin_memory"} if kwargs else kwargs
        result = operation.run(*changed(args, _inner), **named)
        if goal is None:
            if operation.waits and cards:
                machine.host_waits_for(machine.cards[cards[0].card.index], operation.name)
            return result
        return self._on_card(func, operation, goal, cards, written, args, kwargs, result)

    def _goal(self, operation: Operation, cards: list[CardTensor], kwargs: Any) -> Card | None:
        """The card that the results are on."""
        if kwargs.get("device") is not None:
            return self._machine.card_for(kwargs["device"])
        if cards and not operation.looks_only:
            return self._machine.cards[cards[0].card.index]
        return None

    def _on_host(self, func: Any, tensors: list[torch.Tensor], written: list[Any], args: Any, kwargs: Any) -> Any:
        machine = self._machine
        if machine._host_uses and not Operation.of(func).is_view:
            for value in tensors:
                if machine.host_uses(value) is not None:
                    machine.check_host(value, any(value is one for one in written), f"{func} on the host")
        if kwargs.get("pin_memory"):
            result = func(*args, **{**kwargs, "pin_memory": False})
            result.untyped_storage()._pretend_locked = True
            return result
        return func(*args, **kwargs)

    def _on_card(
        self, func: Any, operation: Operation, card: Card, cards: list[CardTensor], written: list[Any], args: Any, kwargs: Any, result: Any
    ) -> Any:
        machine, queue = self._machine, self._machine.queue(card.index)
        if isinstance(result, torch.Tensor):
            wrapped = CardTensor(result, card, queue)
        else:
            wrapped = changed(result, lambda value: CardTensor(value, card, queue) if isinstance(value, torch.Tensor) else value)
        if operation.is_view:
            card.counters["views"] += 1
        elif not operation.only_allocates:
            machine.kernel(card, operation.name, sum(value.nbytes for value in cards))
            self._note_uses(operation, queue, cards, written, wrapped)
            if operation.waits:
                machine.host_waits_for(card, operation.name)
        return wrapped if operation.makes_all or not cards else return_and_correct_aliasing(func, args, kwargs, wrapped)

    @staticmethod
    def _note_uses(operation: Operation, queue: Any, cards: list[CardTensor], written: list[Any], results: Any) -> None:
        for tensor in cards:
            writes = bool(written) and any(tensor is one for one in written)
            check(tensor.block.uses, queue.clock, writes, operation.name)
            tensor.block.uses.note(queue, writes)
        for tensor in leaves(results):
            if isinstance(tensor, CardTensor):
                tensor.block.uses.note(queue, writes=True)

    def _count_indices(self, args: Any) -> None:
        subject = args[0]
        if isinstance(subject, CardTensor):
            card = self._machine.cards[subject.device.index]
            for index in args[1]:
                if isinstance(index, CardTensor) and index.dtype in (torch.bool, torch.uint8):
                    self._machine.host_waits_for(card, "boolean index")
                elif isinstance(index, torch.Tensor) and not isinstance(index, CardTensor):
                    card.counters["host indices"] += 1

    # Operations with rules of their own

    def _device(self, func: Any, args: Any, kwargs: Any) -> torch.device:
        return args[0].device

    def _to_copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        source, machine = args[0], self._machine
        is_card = isinstance(source, CardTensor)
        goal = machine.card_for(kwargs["device"]) if kwargs.get("device") is not None else machine.card_for(source.device)
        if goal is None and not is_card:
            return self._on_host(func, [source], [], args, kwargs)
        plain = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory", "non_blocking")}
        copied = func(_inner(source), *args[1:], **plain, device=CPU)
        target = copied if goal is None else CardTensor(copied, goal, machine.queue(goal.index))
        copies.account(machine, source, target, bool(kwargs.get("non_blocking")))
        return target

    def _copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        target, source = args[0], args[1]
        if not isinstance(target, CardTensor) and not isinstance(source, CardTensor):
            return self._on_host(func, [target, source], [target], args, kwargs)
        if not isinstance(target, CardTensor):
            self._machine.check_host(target, True, "a copy to the host")
        in_place = func.overloadpacket is aten.copy_
        copied = func(_inner(target), _inner(source), *args[2:], **kwargs)
        if not in_place:
            card = self._machine.card_for(target.device)
            target = copied if card is None else CardTensor(copied, card, self._machine.queue(card.index))
        copies.account(self._machine, source, target, copies.flag(args, kwargs, 2, "non_blocking"))
        return target

    def _item(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        if isinstance(tensor, CardTensor):
            card = self._machine.cards[tensor.device.index]
            check(tensor.block.uses, self._machine.queue(card.index).position(), False, "item()")
            self._machine.host_waits_for(card, "item")
        else:
            self._machine.check_host(tensor, False, "item()")
        return func(_inner(tensor))

    def _lock_copy(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        if isinstance(args[0], CardTensor):
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        copied = args[0].clone()
        copied.untyped_storage()._pretend_locked = True
        return copied

    def _is_locked(self, func: Any, args: Any, kwargs: Any) -> bool:
        return not isinstance(args[0], CardTensor) and self._machine.is_locked(args[0])

    def _record_stream(self, func: Any, args: Any, kwargs: Any) -> None:
        args[0].block.uses.recorded.add(args[1].queue.number)

    def _can_take_data(self, func: Any, args: Any, kwargs: Any) -> bool:
        return not any(isinstance(value, CardTensor) for value in args)  # Module.to makes new parameters instead


def _inner(value: Any) -> Any:
    """What the host computes with in place of *value*."""
    if type(value) is CardTensor:
        return value.inner
    return CPU if type(value) is torch.device and value.type == "cuda" else value
