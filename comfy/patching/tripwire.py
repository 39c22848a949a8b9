"""A tripwire for patched state that stays behind: after un-patching, a module's weights and buffers must be what they were before."""

from __future__ import annotations

import functools
import logging

from comfy.cli_args import args
from comfy.patching.protocols import Patcher
from comfy.patching.schedules import HasBuffers, schedules
from comfy.ram_model_cache.checksums import WeightChecksums, Weights, WeightsChanged

log = logging.getLogger(__name__)


class Tripwire:
    """What un-patching must leave as it was: noted before a module is patched first, compared after every un-patching.

    Small buffers and the noise schedule are always looked at, and put back. Checksums of both ends of each weight and buffer are compared
    with ``--verify-unpatch`` only; the module counts as it is from then on. A difference is logged as an error, and with the flag counted
    in ``leaks``. For the thread that runs nodes.
    """

    def __init__(self) -> None:
        self._sums: WeightChecksums[Patcher] = WeightChecksums(_state)
        self.leaks = 0

    def before_patching(self, patcher: Patcher) -> None:
        """Note what *patcher*'s module holds, unless it is patched or loaded."""
        is_pristine = not (patcher.backup or patcher.backup_buffers or patcher.object_patches_backup or patcher.hook_backup)
        if is_pristine:
            schedules().note(patcher)
        if args.verify_unpatch and is_pristine and not self._sums.knows(patcher):
            self._sums.note(patcher)

    def after_unpatching(self, patcher: Patcher) -> None:
        """Compare what *patcher*'s module holds with what was noted."""
        self.leaks += put_back(patcher) and args.verify_unpatch
        if not args.verify_unpatch:
            return
        try:
            self._sums.check(patcher)
        except WeightsChanged as error:
            self.leaks += 1
            log.error("un-patching left something behind: %s", error)
            self._sums.note(patcher)


@functools.cache
def tripwire() -> Tripwire:
    """The process's own."""
    return Tripwire()


def put_back(patcher: HasBuffers) -> bool:
    """Put back the buffers and schedule of *patcher*'s module, and log what differed; whether anything did."""
    changed = schedules().restore(patcher)
    if changed:
        kind = type(patcher.model).__name__
        log.error(
            "un-patching left something behind: %s of a %s, %d in all; it is put back. A node has written its own schedule or values into "
            "the model instead of patching a clone of it",
            changed[0],
            kind,
            len(changed),
        )
    return bool(changed)


def _state(patcher: Patcher) -> Weights:
    yield from patcher.model.named_parameters(remove_duplicate=False)
    yield from patcher.model.named_buffers(remove_duplicate=False)
