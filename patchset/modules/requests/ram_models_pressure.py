"""Kept models make way when RAM runs short: before a model is read, and after each node.

RAM that is to be had is what the system says, or what is left below the limit of the container (cgroup), whichever is less. So much
stays free: 5 % of the RAM, 2 GiB, or what ``--cache-ram`` is to leave free, whichever is most.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import psutil

from comfy.cli_args import args
from comfy.ram_models import ram_models

GIB = 1024**3
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)


def available_bytes() -> int:
    """RAM that is still to be had."""
    free = [psutil.virtual_memory().available]
    for limit, used, stat, name in LIMITS:
        try:
            most, now = (int(pathlib.Path(path).read_text()) for path in (limit, used))
            rows = dict(line.split() for line in pathlib.Path(stat).read_text().splitlines())
            free.append(most - now + int(rows.get(name, 0)))  # the page cache is given back
        except (OSError, ValueError):  # no such group, or no limit ("max")
            continue
    return max(0, min(free))


def headroom_bytes() -> int:
    """RAM that is to stay free."""
    asked = args.cache_ram if isinstance(args.cache_ram, list | tuple) else [args.cache_ram]
    return int(max(2 * GIB, psutil.virtual_memory().total * 0.05, *(gigabytes * GIB for gigabytes in asked[:1])))


def kept_bytes() -> int:
    """What the kept models take."""
    return sum(entry.size_bytes() for entry in list(ram_models.cache.entries.values()))


def give_way(wanted_bytes: int = 0) -> None:
    """Let go of models until *wanted_bytes* and the headroom are free, or none is kept."""
    lacking = wanted_bytes + headroom_bytes() - available_bytes()
    if lacking > 0:
        ram_models.shrink(max(0, kept_bytes() - lacking), "RAM runs short")


def makes_room(load: Callable[..., Any]) -> Callable[..., Any]:
    """Of a function that builds a model from a file, or from several, named by its first argument."""
    if not ram_models.cache.cap_bytes:
        return load

    @functools.wraps(load)
    def load_with_room(*args: Any, **kwargs: Any) -> Any:
        named = args[0] if args else next(iter(kwargs.values()))
        paths = named if isinstance(named, list | tuple) else [named]
        give_way(sum(os.path.getsize(path) for path in paths if os.path.isfile(path)))
        return load(*args, **kwargs)

    return load_with_room


def gives_way_after(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Of the executor's coroutine that runs one node."""
    if not ram_models.cache.cap_bytes:
        return execute

    @functools.wraps(execute)
    async def execute_node(*args: Any, **kwargs: Any) -> Any:
        try:
            return await execute(*args, **kwargs)
        finally:
            give_way()

    return execute_node
