"""What the RAM model cache did and why: counters, one receipt per model a prompt used, and the reasons for misses.

Portable: standard library only. The cache's lock guards everything here but the values handed out, which are frozen.
"""

from __future__ import annotations

import contextvars
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import asdict, dataclass, field
from typing import Any

from comfy.ram_model_cache.weights_key import WeightsKey, difference
from comfy.units import megabytes

PROMPTS_KEPT = 256
RECEIPTS_PER_PROMPT = 256
KEYS_REMEMBERED = 4096
current_prompt: contextvars.ContextVar[str | None] = contextvars.ContextVar("ram_model_cache_prompt", default=None)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where one model came from.

    *tier*: ``vram`` (on a device already), ``ram``, ``in use`` (alive though no longer kept), ``ahead`` (read before its loader asked),
    ``store`` (mapped: a server before, or another one, left it), ``disk``, ``none`` (the file has no such part), ``bypass`` (loaded anew,
    not cacheable) or ``unique`` (patches computed anew whenever they are made anew). *seconds* were spent for ``disk``, hidden for
    ``ahead`` (what the load took, less what its loader had to wait for it), saved otherwise. *kept*: whether it stays cached.
    """

    model: str
    tier: str
    bytes: int
    seconds: float
    kept: bool
    reason: str = ""


@dataclass(slots=True)
class Counters:
    """Totals since the cache was made; bytes and seconds as named, *evictions* by kind of reason.

    What was read ahead counts as a miss when its loader asks, and as *ahead_unused* when it is dropped before. *from_store*: misses that
    the store of weights served.
    """

    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    refusals: int = 0
    failures: int = 0
    vram_evictions: int = 0
    reclaims: int = 0
    read_bytes: int = 0
    saved_seconds: float = 0.0
    high_water_bytes: int = 0
    read_ahead: int = 0
    ahead_unused: int = 0
    hidden_seconds: float = 0.0
    from_store: int = 0
    evictions: dict[str, int] = field(default_factory=dict)


class ReceiptBook:
    """Receipts by prompt, the newest ``PROMPTS_KEPT`` prompts. What no prompt asked for (preloading) stands under None."""

    def __init__(self) -> None:
        self._by_prompt: OrderedDict[str | None, list[Receipt]] = OrderedDict()

    def begin(self, prompt_id: str) -> None:
        """Receipts of this context, and of what it calls, go to *prompt_id* from now on."""
        current_prompt.set(prompt_id)
        self._by_prompt[prompt_id] = []
        while len(self._by_prompt) > PROMPTS_KEPT:
            self._by_prompt.popitem(last=False)

    def end(self) -> None:
        """Receipts of this context belong to no prompt from now on."""
        current_prompt.set(None)

    def add(self, receipt: Receipt) -> None:
        """Note *receipt* for the current prompt; of very many, the newest."""
        receipts = self._by_prompt.setdefault(current_prompt.get(), [])
        receipts.append(receipt)
        del receipts[:-RECEIPTS_PER_PROMPT]

    def of(self, prompt_id: str | None) -> list[dict[str, Any]]:
        """The receipts of *prompt_id* as plain dicts, oldest first; empty for an unknown one."""
        return [asdict(receipt) for receipt in self._by_prompt.get(prompt_id, ())]

    def summary(self, prompt_id: str) -> str:
        """One line for the log; empty when the prompt used no model."""
        parts = []
        for receipt in self._by_prompt.get(prompt_id, ()):
            why = f", {receipt.reason}" if receipt.reason else ""
            parts.append(f"{receipt.model} from {receipt.tier} ({megabytes(receipt.bytes)}, {receipt.seconds:.2f} s{why})")
        return f"models of prompt {prompt_id}: " + "; ".join(parts) if parts else ""


class MissReasons:
    """Remembers which keys were loaded and how they left, to say why one is not here."""

    def __init__(self) -> None:
        self._gone: OrderedDict[Hashable, str] = OrderedDict()
        self._at_place: OrderedDict[Hashable, WeightsKey] = OrderedDict()

    def loaded(self, key: Hashable) -> None:
        """Note that *key* was loaded."""
        self._gone.pop(key, None)
        if isinstance(key, WeightsKey):
            _remember(self._at_place, (key.component, key.paths), key)

    def left(self, key: Hashable, why: str, at_s: float) -> None:
        """Note that *key* left or was not kept, *why*, and when (seconds since the epoch)."""
        _remember(self._gone, key, f"{why} at {time.strftime('%H:%M:%S', time.localtime(at_s))}")

    def explain(self, key: Hashable) -> str:
        """Why *key* is not cached: it left, its file changed, other options were used before, or nothing is known of it."""
        if key in self._gone:
            return self._gone[key]
        before = self._at_place.get((key.component, key.paths)) if isinstance(key, WeightsKey) else None
        return (before is not None and isinstance(key, WeightsKey) and difference(before, key)) or "first use"


def _remember(table: OrderedDict[Hashable, Any], key: Hashable, value: Any) -> None:
    table.pop(key, None)
    table[key] = value
    while len(table) > KEYS_REMEMBERED:
        table.popitem(last=False)
