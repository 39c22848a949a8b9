"""Fetching the weights of layers that stay on the host, ahead of their use.

A card copies and computes at the same time. Weights are copied by streams of their own into a few buffers: while one layer computes, the
next one's weights arrive. Who follows whom is learnt from the calls themselves, so the first pass over a network fetches each layer when it
is called, and later ones ahead. The host never waits: events order copies and computing on the card. Copies are only queued where the
host's memory is page-locked (:mod:`comfy.residency.arena_pinner`); elsewhere the driver makes the host wait, and the results are the same.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.residency.platform_facts import is_oom
from comfy.wrapper_tensors import inner_tensors, rebuilt

if TYPE_CHECKING:
    from torch import Tensor, device

torch = lazy_module("torch")
tensor_digests = lazy_module("comfy.patch_identity.tensor_digests")
log = logging.getLogger(__name__)
ALIGNMENT_BYTES = 256  # of each tensor in a buffer; kernels read up to 16 bytes at once
LARGEST_GAP_BYTES = 4096  # between two tensors that are copied as one
FETCHER = "weight_fetcher"  # the attribute of a module that keeps what fetches its weights


StandIn = Callable[[int, int], "Tensor | None"]


def no_stand_in(address: int, size_bytes: int) -> None:
    """Bytes are copied from where they lie."""


class WeightFetcher:
    """Brings weights to the card *torch_device* through *count* buffers, each filled by a stream of its own.

    What :meth:`fetch` returns lies in a buffer and holds until the next call; whoever needs it longer copies it. Made for one module on
    one device; layers refer to it, it refers to them weakly. Used by one thread at a time, on that thread's current stream.
    Buffers have the size of the largest layer and are freed with this object.
    """

    def __init__(self, torch_device: device, count: int, stand_in: StandIn = no_stand_in) -> None:
        """*stand_in*: where else bytes of the host lie, page-locked."""
        self.torch_device = torch_device
        self._slots = [_Slot(torch_device, stand_in) for _ in range(count)]
        self._following: dict[int, weakref.ref[Any]] = {}  # after the layer with this id came that one
        self._last: weakref.ref[Any] | None = None
        self._sent = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copied layer has none; loading it gives it one."""

    def __reduce__(self) -> tuple[Any, ...]:
        """None in another process."""
        return type(None), ()

    def fetch(self, layer: Any) -> Mapping[str, Tensor]:
        """The parameters of *layer* on the card, by name, in the dtypes they have; the layers that follow are sent for.

        Raises ``torch.OutOfMemoryError`` when there is no room for the buffers.
        """
        self._note_order(layer)
        current = torch.cuda.current_stream(self.torch_device)
        slot = self._holding(layer)
        while slot is None:
            slot = self._sent_to(set(), layer, current)
        wanted, following = {id(slot)}, layer
        for _ in self._slots[1:]:
            following = self._follower(following)
            if following is None or following is layer:
                break
            ahead = self._holding(following) or self._sent_to(wanted, following, current)
            if ahead is None:
                break
            wanted.add(id(ahead))
        return slot.take(current)

    def forget(self) -> None:
        """Fetch everything anew from now on: weights may have been written to in ways that torch does not count."""
        for slot in self._slots:
            slot.forget()

    def size_bytes(self) -> int:
        """The bytes of the buffers as they are now: each is made when it is used first."""
        return sum(slot.size_bytes() for slot in self._slots)

    def release(self) -> None:
        """Free the buffers, also while layers that are out of the module for now still refer to this object."""
        for slot in self._slots:
            slot.release()

    def _sent_to(self, wanted: set[int], layer: Any, current: Any) -> _Slot | None:
        """The slot, none of the *wanted* (ids), that *layer* is on its way to; None, and one slot less from now on, without room for it."""
        slot = self._next_free(wanted)
        self._sent += 1
        slot.serial = self._sent
        try:
            with torch.inference_mode():  # buffers are written in place, whatever mode the caller is in
                slot.send(layer, current)
        except RuntimeError as error:
            if len(self._slots) == 1 or not is_oom(error):
                raise
            log.info("%s has no room for %d buffers of weights: one less is used", self.torch_device, len(self._slots))
            self._slots.remove(slot)
            return None
        return slot

    def _note_order(self, layer: Any) -> None:
        before = None if self._last is None else self._last()
        if before is not None and before is not layer and self._follower(before) is not layer:
            self._following[id(before)] = weakref.ref(layer)
        if before is not layer:
            self._last = weakref.ref(layer)

    def _follower(self, layer: Any) -> Any:
        reference = self._following.get(id(layer))
        return None if reference is None else reference()

    def _holding(self, layer: Any) -> _Slot | None:
        return next((slot for slot in self._slots if slot.holds(layer)), None)

    def _next_free(self, wanted: set[int]) -> _Slot:
        """The slot filled longest ago that none of the *wanted* (ids) is."""
        return min((slot for slot in self._slots if id(slot) not in wanted), key=lambda slot: slot.serial)


class _Slot:
    """A buffer, the stream that fills it, and what is in it."""

    def __init__(self, torch_device: device, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self.serial = 0  # of what was sent last
        self._device = torch_device
        self._stream = torch.cuda.Stream(torch_device)
        self._filled, self._unused = torch.cuda.Event(), torch.cuda.Event()
        self._buffer: Tensor | None = None
        self._layer: weakref.ref[Any] | None = None
        self._sources: dict[str, weakref.ref[Any]] = {}
        self._versions: list[int | None] = []
        self._values: dict[str, Tensor] = {}

    def forget(self) -> None:
        """Hold no layer's parameters any more; the buffer stays."""
        self._layer = None

    def size_bytes(self) -> int:
        """The bytes of the buffer."""
        return 0 if self._buffer is None else self._buffer.nbytes

    def release(self) -> None:
        """Free the buffer; what was taken from it is not to be used any more."""
        self._layer, self._buffer = None, None
        self._values, self._sources = {}, {}

    def holds(self, layer: Any) -> bool:
        """Whether the parameters that *layer* has now are here, or on their way, and torch has changed none of them in place since."""
        if self._layer is None or self._layer() is not layer:
            return False
        own = _parameters(layer)
        are_same = own.keys() == self._sources.keys() and all(self._sources[name]() is value for name, value in own.items())
        return are_same and _versions(own) == self._versions

    def send(self, layer: Any, current: Any) -> None:
        """Copy *layer*'s parameters here, once what *current* has queued by now, which may use the buffer, is done."""
        self._layer = None
        parameters = _parameters(layer)
        versions = _versions(parameters)
        plan = _Layout([part for value in parameters.values() for part in inner_tensors(value)])
        buffer = self._room_for(plan.size_bytes)
        self._unused.record(current)
        self._stream.wait_event(self._unused)
        with torch.cuda.stream(self._stream):
            moved = plan.copy_into(buffer, self._stand_in)
        self._filled.record(self._stream)
        self._values = {name: rebuilt(value, lambda part: moved[id(part)]) for name, value in parameters.items()}
        self._sources = {name: weakref.ref(value) for name, value in parameters.items()}
        self._versions = versions
        self._layer = weakref.ref(layer)

    def take(self, current: Any) -> Mapping[str, Tensor]:
        """The values, usable by what *current* queues from now on."""
        current.wait_event(self._filled)
        return self._values

    def _room_for(self, size_bytes: int) -> Tensor:
        if self._buffer is None or self._buffer.numel() < size_bytes:
            self._values, self._buffer = {}, None
            self._buffer = torch.empty(size_bytes, dtype=torch.uint8, device=self._device)
            self._buffer.record_stream(self._stream)  # when freed, it is not reused before the last copy into it is done
        return self._buffer


class _Layout:
    """Where the *tensors* of one layer lie in a buffer. Neighbours in host memory are copied as one."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._runs: list[tuple[int, list[Tensor]]] = []  # (offset in the buffer, tensors that are copied together)
        self.size_bytes = 0
        for tensor in sorted(tensors, key=lambda tensor: tensor.data_ptr()):
            if not self._runs or not _are_neighbours(self._runs[-1][1][-1], tensor):
                self._runs.append((-(-self.size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES, []))
            offset, run = self._runs[-1]
            run.append(tensor)
            self.size_bytes = offset + tensor.data_ptr() - run[0].data_ptr() + tensor.nbytes

    def copy_into(self, buffer: Tensor, stand_in: StandIn) -> dict[int, Tensor]:
        """Queue the copies on the current stream. Returns what is each tensor (by id) in *buffer*."""
        placed = {}
        for start, run in self._runs:
            first = run[0].data_ptr()
            length = run[-1].data_ptr() + run[-1].nbytes - first
            locked = stand_in(first, length)
            buffer[start : start + length].copy_(_bytes_from(run[0], length) if locked is None else locked, non_blocking=True)
            for tensor in run:
                offset = start + tensor.data_ptr() - first
                placed[id(tensor)] = buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        return placed


def can_fetch(layer: Any) -> bool:
    """Whether all parameters of *layer* are on the host and in one piece each."""
    parts = [part for value in _parameters(layer).values() for part in inner_tensors(value)]
    return bool(parts) and all(part.device.type == "cpu" and part.is_contiguous() and part.numel() for part in parts)


def _parameters(layer: Any) -> dict[str, Any]:
    return {name: value for name, value in layer._parameters.items() if value is not None}


def _versions(parameters: Mapping[str, Any]) -> list[int | None]:
    """How often torch has changed the *parameters* in place; None for those it does not count for."""
    return [tensor_digests.version_of(part) for value in parameters.values() for part in inner_tensors(value)]


def _are_neighbours(one: Tensor, other: Tensor) -> bool:
    gap = other.data_ptr() - one.data_ptr() - one.nbytes
    aligned = other.data_ptr() % 16 == one.data_ptr() % 16 == 0
    return 0 <= gap <= LARGEST_GAP_BYTES and aligned and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _bytes_from(tensor: Tensor, length: int) -> Tensor:
    """*length* bytes of host memory from where *tensor* begins."""
    whole = torch.empty(0, dtype=torch.uint8)
    return whole.set_(tensor.untyped_storage(), tensor.storage_offset() * tensor.element_size(), (length,))
