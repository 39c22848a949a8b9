"""How large the RAM model cache is to be, by the flags and the free RAM. Portable: standard library and the modules next to it."""

from __future__ import annotations

import logging
from argparse import Namespace
from dataclasses import replace

from comfy.ram_model_cache.host_memory import HostMemory, auto_cap_bytes
from comfy.ram_model_cache.values import CacheSettings
from comfy.units import MIB, megabytes

log = logging.getLogger(__name__)


def settings_from(args: Namespace, memory: HostMemory, chooses: bool = True, headroom_bytes: int | None = None) -> CacheSettings | None:
    """The settings that *args* ask for, None for no cache; says in the log which and why.

    *chooses*: whether the free RAM decides where no flag does. *headroom_bytes*: RAM to leave free (None: a share of all there is).
    Reads ``ram_model_cache_mb`` (in MiB), ``ram_model_cache_ttl`` (in seconds) and, where there is one, ``no_ram_model_cache``.
    """
    cap_bytes, why = _cap(args, memory, chooses)
    ttl_s = args.ram_model_cache_ttl
    if cap_bytes <= 0:
        if ttl_s is not None:
            log.warning("--ram-model-cache-ttl has no effect: the RAM model cache is off")
        return None
    idle = "" if ttl_s is None else f", each until {ttl_s:g} s without use"
    log.info("RAM model cache: models stay in up to %s of host RAM%s (%s)", megabytes(cap_bytes), idle, why)
    return CacheSettings(cap_bytes, headroom_bytes, ttl_s, memory.total_bytes())


def settings_anew(args: Namespace, memory: HostMemory, before: CacheSettings, kept_bytes: int) -> CacheSettings:
    """The settings after a restore, with *kept_bytes* in the cache: as flags or the free RAM say now, and never more than may be used.

    *before*: those until now, whose size stays where nothing else chooses one.
    """
    total_bytes = memory.total_bytes()
    anew = replace(before, total_bytes=total_bytes)
    if args.ram_model_cache_mb is None:
        chosen_bytes = auto_cap_bytes(memory.available_bytes() + kept_bytes) or before.cap_bytes
    else:
        chosen_bytes = args.ram_model_cache_mb * MIB
    cap_bytes = max(1, min(chosen_bytes, total_bytes - anew.headroom))
    log.info("RAM model cache: after the restore up to %s of %s of host RAM", megabytes(cap_bytes), megabytes(total_bytes))
    return replace(anew, cap_bytes=cap_bytes)


def _cap(args: Namespace, memory: HostMemory, chooses: bool) -> tuple[int, str]:
    """(bytes, who chose them)"""
    if getattr(args, "no_ram_model_cache", False):
        return 0, ""
    if args.ram_model_cache_mb is not None:
        return args.ram_model_cache_mb * MIB, "by --ram-model-cache-mb"
    free_bytes = memory.available_bytes()
    cap_bytes = auto_cap_bytes(free_bytes) if chooses else 0
    return cap_bytes, f"chosen for {megabytes(free_bytes)} of free RAM; --ram-model-cache-mb sets it, --no-ram-model-cache turns it off"
