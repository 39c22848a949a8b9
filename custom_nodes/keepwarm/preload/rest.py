"""What is missing of the preloaded models is read again, by the server, while it has prompts that want nothing else."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from .preloader import Entry, Preloader, State

_WANTED = (State.WAITING, State.HELD, State.NOT_HELD)


@dataclass(frozen=True, slots=True)
class MissingModel:
    """A model of the config that is not held; what the server's reader takes (``app/read_ahead/loads.py``)."""

    preloader: Preloader
    entry: Entry

    @property
    def key(self) -> Hashable:
        """The loader's call."""
        return "preload", self.entry.call.asks_for()

    @property
    def name(self) -> str:
        """What it is, for people."""
        return self.entry.title

    def states(self) -> tuple[Any, ...] | None:
        """What tells its files as they are now from others; None while one is missing."""
        return self.entry.call.file_states()

    def run(self) -> None:
        """Read it; the server keeps it."""
        self.entry.call.run()

    def settle(self) -> None:
        """Hold what was read."""
        self.preloader.load(self.entry)


def missing_models(preloader: Preloader) -> Sequence[MissingModel]:
    """Those that were dropped, or whose files were replaced. Not those that failed, or that somebody let go."""
    return [
        MissingModel(preloader, entry)
        for entry in preloader.plan.entries
        if entry.state in _WANTED and not preloader.keeper.holds(entry.call)
    ]
