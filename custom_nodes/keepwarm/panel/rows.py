"""What the panel lists: a row per model in memory and per model file."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Tier(StrEnum):
    """Where a model lies, the fastest place first. ``IN_USE``: in RAM only until whoever uses it is done."""

    VRAM = "vram"
    RAM = "ram"
    IN_USE = "in use"
    DISK = "disk"


class Action(StrEnum):
    """What can be asked for a row."""

    HOLD = "hold"
    LET_GO = "let-go"
    TO_RAM = "to-ram"
    DROP = "drop"
    PRELOAD = "preload"


@dataclass(frozen=True, slots=True)
class Row:
    """One model. *kind*: the part of a file (``model``, ``clip`` …) or the folder; *files*: (folder, name) as loader nodes name them.

    *used_at*: seconds since the epoch, None where nobody knows; *reload_s*: what reading it took.
    """

    id: str
    name: str
    kind: str
    files: tuple[tuple[str, str], ...]
    tier: Tier
    ram_bytes: int = 0
    vram_bytes: int = 0
    disk_bytes: int = 0
    used_at: float | None = None
    held: bool = False
    users: int = 0
    reload_s: float | None = None
    actions: tuple[Action, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {**asdict(self), "files": [list(file) for file in self.files], "actions": list(self.actions)}

    @property
    def in_memory(self) -> bool:
        """Whether it is more than a file."""
        return self.tier is not Tier.DISK
