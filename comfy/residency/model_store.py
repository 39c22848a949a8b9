"""Opens the store of weights that the flags name."""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace

from comfy.ram_model_cache.host_memory import HostMemory
from comfy.ram_model_store.folder import StoreFolder, StoreRefused, auto_folder
from comfy.ram_model_store.locks import StoreBusy
from comfy.ram_model_store.store import RamModelStore
from comfy.residency.model_cache import AnyCache
from comfy.units import MIB, megabytes

log = logging.getLogger(__name__)
AUTO = "auto"


def make_store(args: Namespace, cache: AnyCache, memory: HostMemory) -> RamModelStore | None:
    """The store that ``ram_model_store`` of *args* names, as large as ``ram_model_store_mb`` or *cache*; None where there can be none.

    Says which and why. Raises ``StoreRefused`` for a named folder that may not be used.
    """
    stats = cache.stats()
    if stats is None:
        log.warning("--ram-model-store has no effect: the RAM model cache is off; give --ram-model-cache-mb")
        return None
    if not sys.platform.startswith("linux"):
        raise StoreRefused("it needs Linux")
    is_auto = args.ram_model_store == AUTO
    asked_bytes = stats.cap_bytes if args.ram_model_store_mb is None else args.ram_model_store_mb * MIB
    try:
        folder = auto_folder() if is_auto else StoreFolder(os.path.abspath(args.ram_model_store))
        cap_bytes = min(asked_bytes, folder.total_bytes())
        store = RamModelStore(folder, cap_bytes, memory.available_bytes)
    except (OSError, StoreBusy) as error:
        raise StoreRefused(f"it cannot be used ({error})") from error
    except StoreRefused as error:
        if not is_auto:
            raise
        log.warning("RAM model store: off: %s", error)
        return None
    log.info("RAM model store: weights stay in %s beyond this server's end, up to %s for all servers", folder.path, megabytes(cap_bytes))
    return store
