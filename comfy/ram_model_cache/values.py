"""The values the RAM model cache takes and gives, and what it asks of its owner. Portable: standard library only."""

from __future__ import annotations

import enum
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy.ram_model_cache.host_memory import default_headroom_bytes, return_freed_memory
from comfy.ram_model_cache.models import LoadedModel, Patcher
from comfy.ram_model_cache.receipts import Counters
from comfy.ram_model_cache.states import MOVES, State
from comfy.ram_model_cache.storage import Storages, host_storages

UNLIMITED_BYTES = 1 << 62
NOT_RESERVED = -1
PRESSURE_RELEASE = 1.5
PADDING_SHARE = 1 / 64  # of an estimate, which does not count what lies between tensors; more than that is a wrong estimate


class DeviceEvent(enum.Enum):
    """What a model's coming to a device, or leaving it, was to the cache; false for a model that the cache does not keep."""

    NOT_KEPT = "not kept"
    ARRIVED = "arrived for the first time"
    RETURNED = "came back from RAM"
    LEFT = "left for RAM"

    def __bool__(self) -> bool:
        return self is not DeviceEvent.NOT_KEPT


@dataclass(frozen=True, slots=True)
class Hit:
    """A cached model: the clone to use (None: the file has no such part), where it was, and the load it saved."""

    value: Any
    tier: str
    saved_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loader's result with what it cost, for loaders that know it better than the clock around them.

    *tier*: where it was; of what was not read, *seconds* are what reading takes.
    """

    value: Any
    seconds: float | None = None
    read_bytes: int | None = None
    tier: str = "disk"


def _nothing(*_: Any) -> None:
    """The hook of an owner that needs none."""


@dataclass(frozen=True, slots=True)
class OwnerHooks:
    """What the cache asks of its owner. All are called without a lock, from the thread that uses the cache or the monitor.

    *available_bytes*: RAM still to be had. *forget_loaded*: take a ``LoadedModel`` off the owner's list and detach its finalizer.
    *restore_base*: undo what patches left in a patcher's module; raises when it cannot. *deactivate_pins*: of a dynamic patcher.
    *pending_paths*: real paths of the files that queued prompts name, in the order in which they will be asked for; a file comes once for
    each prompt that names it. *raise_if_interrupted*: asked while waiting for another load.
    *measure*: bytes of host memory by storage. *trim*: give freed memory back to the system. *release_spare*: the same for what may
    serve a load in progress; called after its end. *unpatch_base*: on the thread that runs nodes, give up the patched weights in host
    memory that *restore_base* let stay; whether there were any. *fresh_bytes*: of the estimated bytes of a key, how many reading it will
    really take. *relieve*: free this much RAM outside the cache, if it holds any; asked before models are evicted for lack of it.
    """

    available_bytes: Callable[[], int] = lambda: UNLIMITED_BYTES
    forget_loaded: Callable[[LoadedModel], None] = _nothing
    restore_base: Callable[[Patcher], None] = _nothing
    deactivate_pins: Callable[[Patcher], None] = _nothing
    pending_paths: Callable[[], Sequence[str]] = tuple
    raise_if_interrupted: Callable[[], None] = _nothing
    measure: Callable[[Patcher], Storages] = host_storages
    trim: Callable[[], Any] = return_freed_memory
    release_spare: Callable[[], Any] = _nothing
    unpatch_base: Callable[[Patcher], bool] = lambda patcher: False
    fresh_bytes: Callable[[Hashable, int], int] = lambda key, estimated_bytes: estimated_bytes
    relieve: Callable[[int], Any] = _nothing


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """*cap_bytes* for kept models; *headroom_bytes* of RAM to leave free (None: by *total_bytes*); *ttl_s* of idleness (None: no end)."""

    cap_bytes: int
    headroom_bytes: int | None = None
    ttl_s: float | None = None
    total_bytes: int = 0

    def __post_init__(self) -> None:
        if self.cap_bytes <= 0:
            raise ValueError(f"the RAM model cache needs a cap above 0 bytes, not {self.cap_bytes}; use NullRamModelCache for none")

    @property
    def headroom(self) -> int:
        """Bytes to leave free."""
        return default_headroom_bytes(self.total_bytes) if self.headroom_bytes is None else self.headroom_bytes

    @property
    def release(self) -> int:
        """Bytes that must be free before the cache grows again after it had to shrink."""
        return int(self.headroom * PRESSURE_RELEASE)

    def pressure_bytes(self, available_bytes: int) -> int:
        """How much is to be freed when *available_bytes* are left: nothing until they are less than the headroom."""
        return self.release - available_bytes if available_bytes < self.headroom else 0


@dataclass(frozen=True, slots=True)
class CacheStats:
    """A moment's picture; *doomed_bytes* wait for a critical section to end."""

    cap_bytes: int
    kept_bytes: int
    reserved_bytes: int
    lent_bytes: int
    doomed_bytes: int
    kept: int
    lent: int
    under_pressure: bool
    counters: Counters


@dataclass(frozen=True, slots=True)
class AheadNote:
    """Of a model that was read before its loader asked: why it was missing then."""

    why: str


@dataclass(slots=True, eq=False)
class Entry:
    """One model, internal to the cache; its lock guards everything here.

    While it is read: *estimated_bytes* are set aside, or *refusal* says why it is not to be kept. Then: *value* is the very object that
    the loader built, *seconds* what the load took, *used_s* the last use on the cache's clock, *busy* the operations in progress,
    *watches* the clones alive, *loaded* the owner's ``LoadedModel`` objects by id; *has_left* says that it was on a device and left it for
    RAM, *ahead* that it was read ahead and no loader has asked for it yet.
    """

    key: Hashable
    held: bool = False
    estimated_bytes: int = NOT_RESERVED
    refusal: str = ""
    value: Any = None
    storages: Storages = field(default_factory=dict)
    seconds: float = 0.0
    used_s: float = 0.0
    busy: int = 0
    restore_due: bool = False
    has_left: bool = False
    ahead: AheadNote | None = None
    watches: set[int] = field(default_factory=set)
    loaded: dict[int, weakref.ref[LoadedModel]] = field(default_factory=dict)
    _state: State = State.ABSENT

    @property
    def state(self) -> State:
        """Where it stands; :meth:`become` changes it."""
        return self._state

    def become(self, state: State) -> None:
        """Move to *state*. Raises ``ValueError`` for a move that ``MOVES`` does not list."""
        if (self._state, state) not in MOVES:
            raise ValueError(f"{self.label} is {self._state.value} and cannot become {state.value}")
        self._state = state

    @property
    def in_use(self) -> bool:
        """Whether somebody besides the cache has it."""
        return bool(self.watches or self.busy)

    @property
    def size_bytes(self) -> int:
        """Bytes of its storages, shared ones included."""
        return sum(self.storages.values())

    def device_models(self) -> list[LoadedModel]:
        """The owner's objects for it on devices with memory of their own."""
        found = [reference() for reference in list(self.loaded.values())]
        return [loaded_model for loaded_model in found if loaded_model is not None and not _is_host(loaded_model)]

    @property
    def on_devices(self) -> int:
        """How many devices with memory of their own it is on."""
        return len(self.device_models())

    @property
    def label(self) -> str:
        """Its key, for people."""
        return label_of(self.key)

    def described(self, now_s: float) -> dict[str, Any]:
        """As a plain dict, for status pages."""
        return {
            "model": self.label,
            "state": self.state.value,
            "bytes": self.size_bytes,
            "reload_s": self.seconds,
            "in_use": self.in_use,
            "on_devices": self.on_devices,
            "held": self.held,
            "idle_s": now_s - self.used_s,
        }


def _is_host(loaded_model: LoadedModel) -> bool:
    """Whether its device is the processor itself; one with an index plays an accelerator."""
    device = getattr(loaded_model, "device", None)
    return getattr(device, "type", None) == "cpu" and getattr(device, "index", None) is None


def label_of(key: Hashable) -> str:
    """A key's ``label``, or its text."""
    return getattr(key, "label", None) or str(key)


def as_loaded(value: Any) -> Loaded:
    """*value* as :class:`Loaded`."""
    return value if isinstance(value, Loaded) else Loaded(value)
