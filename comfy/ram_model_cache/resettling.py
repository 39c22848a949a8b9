"""What a restored memory snapshot changes for the table: limits, the identities of files, the clock. Portable: standard library only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from comfy.ram_model_cache.table import ModelTable
from comfy.ram_model_cache.values import CacheSettings, Entry

Renamed = Callable[[Hashable], Hashable]


def resettle(table: ModelTable, settings: CacheSettings, renamed: Renamed, now_s: float) -> None:
    """Give *table* other *settings*, evicting what has no room, and each entry the key that *renamed* gives it; all were used *now_s*.

    No load is in progress. The cache's lock is held.
    """
    table.settings = settings
    table.policy.resize(settings.cap_bytes)
    table.absent = OrderedDict.fromkeys(map(renamed, table.absent))
    for entry in list(table.entries.values()):
        entry.used_s = now_s
        key = renamed(entry.key)
        if key != entry.key and key not in table.entries:
            _rename(table, entry, key)
    table.shrink("there is less room since the restore")


def _rename(table: ModelTable, entry: Entry, key: Hashable) -> None:
    is_counted = entry.key in table.ledger
    table.ledger.remove(entry.key)
    del table.entries[entry.key]
    entry.key = key
    table.entries[key] = entry
    if is_counted:
        table.ledger.put(key, entry.storages)
    table.journal.reasons.loaded(key)
    table.policy.request(key)
    table.policy.learn(key, entry.size_bytes, entry.seconds)
