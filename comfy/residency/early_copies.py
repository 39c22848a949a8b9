"""Weights that are sent to a card before their model is loaded, while another one computes.

A prompt that will sample after its texts are encoded needs the diffusion model next. While the card computes texts its copy engine is
idle, so weights that lie in page-locked memory, or have a page-locked twin there (:mod:`comfy.residency.stand_ins`), are sent then, by a
stream of their own, into memory that is free anyway. Loading takes what has come and copies the rest. Nothing of the model changes before:
what was sent can be dropped at any time, at no cost.

Node packs may write into weights meanwhile; what was sent of those is not used. torch counts changes in place, the system tells which pages
of a stored weight were written to, and a sample of the values shows most of what is written past torch's counter (``weight.data``, numpy).
After a pack's node that was given the model, all that was sent of it before is dropped.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.residency.fetching import StandIn, no_stand_in
from comfy.residency.platform_facts import raise_non_oom

if TYPE_CHECKING:
    from torch import Tensor, device

torch = lazy_module("torch")
tensor_digests = lazy_module("comfy.patch_identity.tensor_digests")
SAMPLED_BYTES = 64
SMALLEST_BYTES = 16 * 1024  # half of SDXL's weights are smaller, 0.0005 of its bytes: queueing them would only hold up the texts


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A weight as it was when its *copy* was queued.

    *version*: torch's counter of changes, which all weights of one block of memory share. *sample*: bytes of it; None where it was sent
    from its twin, and its pages tell of changes.
    """

    weight: weakref.ref[Any]
    version: int | None
    address: int
    sample: Tensor | None
    copy: Tensor

    @classmethod
    def now(cls, weight: Tensor, copy: Tensor, from_twin: bool) -> _Sent:
        """*weight* as it is, to be copied to *copy*."""
        sample = None if from_twin else _sample(weight)
        return cls(weakref.ref(weight), tensor_digests.version_of(weight), weight.data_ptr(), sample, copy)

    def is_still(self, weight: Tensor, stand_in: StandIn) -> bool:
        """Whether this is *weight*, and nothing was written into it since, as far as can be seen."""
        if self.weight() is not weight or weight.data_ptr() != self.address:
            return False
        if self.sample is None:
            return stand_in(self.address, weight.nbytes) is not None  # the twin stands in only for what is untouched
        return tensor_digests.version_of(weight) == self.version and torch.equal(_sample(weight), self.sample)


class EarlyCopies:
    """Copies of one module's weights on the card *torch_device*. Used by the thread that loads models; refers to the module weakly."""

    def __init__(self, torch_device: device, stand_in: StandIn = no_stand_in) -> None:
        """*stand_in*: where else bytes of the host lie, page-locked."""
        self._device, self._stand_in = torch_device, stand_in
        self._stream: Any = None
        self._arrived: Any = None
        self._owner: weakref.ref[Any] | None = None
        self._sent: dict[int, _Sent] = {}

    def size_bytes(self) -> int:
        """What they take. Any thread."""
        return sum(sent.copy.nbytes for sent in list(self._sent.values()))

    def belongs_to(self, module: Any) -> bool:
        """Whether weights of *module* were sent."""
        return bool(self._sent) and self._owner is not None and self._owner() is module

    def send(self, module: Any, weights: Iterable[Tensor], budget_bytes: float) -> int:
        """Queue copies of those of *module*'s *weights* that are page-locked, in order, while *budget_bytes* last. Returns their bytes.

        What was sent of another module is dropped. Ends, with what was sent by then, where the card has no room.
        """
        if self.belongs_to(module):
            return 0
        self.drop()
        if self._stream is None:
            self._stream, self._arrived = torch.cuda.Stream(self._device), torch.cuda.Event()
        self._owner = weakref.ref(module)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # what is queued there may still use the memory
        try:
            for weight in weights:
                source = self._locked(weight) if weight.nbytes <= budget_bytes and id(weight) not in self._sent else None
                if source is not None:
                    self._queue_copy(weight, source)
                    budget_bytes -= weight.nbytes
        except RuntimeError as error:  # what has found room is kept
            raise_non_oom(error)
        finally:
            self._arrived.record(self._stream)
        return self.size_bytes()

    def _queue_copy(self, weight: Tensor, source: Tensor) -> None:
        """Have *weight* copied from *source*; its memory is the current stream's, and the copies' too until they are done."""
        copy = torch.empty_like(weight, device=self._device, requires_grad=False)
        copy.record_stream(self._stream)
        self._sent[id(weight)] = _Sent.now(weight, copy, source is not weight)
        with torch.cuda.stream(self._stream), torch.no_grad():
            copy.copy_(source, non_blocking=True)

    def _locked(self, weight: Tensor) -> Tensor | None:
        """*weight*, or its twin, in page-locked host memory. None where neither is, for small ones, and for kinds that only their maker
        knows how to copy.
        """
        is_plain = type(weight) in (torch.Tensor, torch.nn.Parameter)
        if not is_plain or weight.device.type != "cpu" or weight.nbytes < SMALLEST_BYTES or not weight.is_contiguous():
            return None
        twin = self._stand_in(weight.data_ptr(), weight.nbytes)
        if twin is not None:
            return twin.view(weight.dtype).view(weight.shape)
        return weight if weight.is_pinned() else None

    def take(self, weight: Tensor) -> Tensor | None:
        """The copy of *weight*, usable by what the current stream queues from now on, and the caller's; None if it was not sent, or has
        been written to since.
        """
        sent = self._sent.pop(id(weight), None) if self._sent else None
        if sent is None or not sent.is_still(weight, self._stand_in):
            return None
        torch.cuda.current_stream(self._device).wait_event(self._arrived)
        return sent.copy

    def drop(self) -> None:
        """Let go of what was sent. Any thread."""
        self._sent.clear()
        self._owner = None


def _sample(weight: Tensor) -> Tensor:
    """A copy of some bytes of *weight*, spread over it; the step is odd, so that each byte of an element is among them."""
    raw = weight.detach().reshape(-1).view(torch.uint8)
    return raw[:: raw.numel() // SAMPLED_BYTES | 1].clone()
