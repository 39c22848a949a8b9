"""Which parts stay in a store: leftovers go, replaced files' parts go, and the policy of the RAM model cache decides about the rest.

All servers decide alike, because they decide by the same notes of uses. Call everything here with the books locked. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.policy import RamCachePolicy
from comfy.ram_model_store import uses
from comfy.ram_model_store.folder import PART_NAME, WRITING_NAME, OpenFolder, same_place_other_files
from comfy.ram_model_store.mapping import is_used

fcntl = lazy_module("fcntl")  # Windows has none
FULL = "the file system is full"


@dataclass(frozen=True, slots=True)
class Removed:
    """A part that left the store, of *size_bytes*, and *why*; *is_mapped*: its memory stays until the last process lets go of it."""

    name: str
    size_bytes: int
    why: str
    is_mapped: bool


class StoreRoom:
    """What lies in *folder*, opened for one operation."""

    def __init__(self, folder: OpenFolder, cap_bytes: int) -> None:
        self._folder, self._cap_bytes = folder, cap_bytes

    def sizes(self) -> dict[Hashable, int]:
        """{name: bytes} of the complete parts."""
        return {name: self._folder.size_bytes(name) for name in self._folder.names(PART_NAME)}

    def writing_bytes(self) -> int:
        """Bytes set aside for parts that are being written."""
        return sum(self._folder.size_bytes(name) for name in self._folder.names(WRITING_NAME))

    def sweep(self) -> list[str]:
        """Remove what writers that died left behind; returns the names."""
        gone = [name for name in self._folder.names(WRITING_NAME) if not _is_being_written(self._folder, name)]
        for name in gone:
            self._folder.remove(name)
        self._folder.remove(uses.NEW_NAME)
        return gone

    def make(self, name: str, size_bytes: int) -> tuple[str, list[Removed]]:
        """Room for the part *name* of *size_bytes*: (why there is none, or "", what went for it)."""
        gone = [self._remove(old, "its file was replaced") for old in self._folder.names(PART_NAME) if same_place_other_files(name, old)]
        sizes = self.sizes()
        decision = self.policy().decide(name, size_bytes, self._cap_bytes - self.writing_bytes(), sizes)
        if not decision.admit:
            return decision.reason, gone
        gone += [self._remove(str(victim), "room needed for another part") for victim in decision.victims]
        gone += self.free(size_bytes - self._folder.free_bytes(), FULL)
        return (FULL if size_bytes > self._folder.free_bytes() else ""), gone

    def free(self, wanted_bytes: int, why: str, mapped: Callable[[str], bool] = lambda name: False) -> list[Removed]:
        """Remove parts of *wanted_bytes*, least valuable first: those that nobody uses, then those of which *mapped* is true, whose memory
        comes free when this process lets go of them.
        """
        if wanted_bytes <= 0:
            return []
        sizes, gone = self.sizes(), []
        order = [str(name) for name in self.policy().eviction_order(sizes)]
        used = {name: is_used(self._folder, name) for name in order}
        for name in (*(name for name in order if not used[name]), *(name for name in order if used[name] and mapped(name))):
            if wanted_bytes > 0:
                gone.append(self._remove(name, why))
                wanted_bytes -= sizes[name]
        return gone

    def remove_all(self, why: str, mapped: Callable[[str], bool]) -> list[Removed]:
        """Remove every part that nobody uses, or of which *mapped* is true."""
        names = self._folder.names(PART_NAME)
        return [self._remove(name, why) for name in names if mapped(name) or not is_used(self._folder, name)]

    def policy(self) -> RamCachePolicy:
        """The policy, told of all uses that are written down."""
        policy = RamCachePolicy()
        for use in uses.read(self._folder):
            policy.request(use.name)
            if use.size_bytes:
                policy.learn(use.name, use.size_bytes, use.seconds)
        return policy

    def _remove(self, name: str, why: str) -> Removed:
        removed = Removed(name, self._folder.size_bytes(name), why, is_used(self._folder, name))
        self._folder.remove(name)
        return removed


def _is_being_written(folder: OpenFolder, name: str) -> bool:
    """Whether a living process has the temporary file *name* locked; what is no plain file is nobody's."""
    try:
        descriptor = folder.open(name, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
