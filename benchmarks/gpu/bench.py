"""What all parts share: the card, real or pretend, the files with random weights, and the clock."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import pathlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.make_checkpoint import PARTS, Family, checkpoint_layout, family
from comfy.ram_model_cache.host_memory import HostMemory

GB = 1e9
PRETEND_BYTES = 4 << 30
REPEATS = 5
SEED = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """A family of checkpoints, how much it is shrunk, and the side of the latents it is tried with."""

    name: str
    shrink: int
    side: int

    def sizes(self) -> Family:
        """The sizes of everything in such a checkpoint."""
        return family(self.name, self.shrink)

    def file_bytes(self) -> int:
        """Bytes of one in half precision."""
        return sum(2 * _count(shape) for shape in checkpoint_layout(self.sizes(), PARTS).values())


CHOICES = (Choice("sdxl", 1, 128), Choice("sd15", 1, 64), Choice("sd15", 5, 64), Choice("sd15", 10, 32))


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def suitable(card_bytes: int, host_bytes: int, disk_bytes: int) -> Choice:
    """The largest of which two fit on the disk, three into the host's memory, and one with room to compute on the card, by half each."""
    for choice in CHOICES:
        size = choice.file_bytes()
        if 2 * size < disk_bytes / 2 and 3 * size < host_bytes / 2 and size + (2 << 30) < card_bytes / 2:
            return choice
    return CHOICES[-1]


class Bench:
    """One process's view of the machine. *folder* holds the files, which are made when first asked for."""

    def __init__(self, folder: pathlib.Path, pretends: bool, upstream: dict[str, str] | None = None) -> None:
        import torch

        self.folder, self.pretends, self.upstream = folder, pretends, upstream
        self.device = torch.device("cuda", 0)
        free_bytes = torch.cuda.mem_get_info(self.device)[0]
        self.host_bytes = HostMemory().available_bytes()
        disk_bytes = shutil.disk_usage(folder).free + sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        self.choice = CHOICES[-1] if pretends else suitable(free_bytes, self.host_bytes, disk_bytes)
        self.card_bytes = free_bytes

    def file(self, number: int = 0) -> str:
        """The path of checkpoint *number* of the chosen family, in half precision."""
        from benchmarks.gpu.random_files import write_quickly

        path = self.folder / f"{self.choice.name}-{self.choice.shrink}-{number}.safetensors"
        if not path.exists():
            write_quickly(path, self.choice.sizes(), SEED + number)
        return str(path)

    def block_bytes(self) -> int:
        """Bytes of a block for trial copies: no more than an eighth of what is free, here and there."""
        wanted = 8 << 20 if self.pretends else 1 << 30
        return int(min(wanted, self.card_bytes // 8, self.host_bytes // 8))

    def synchronize(self) -> None:
        """Wait until the card has done all."""
        import torch

        torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], Any]) -> float:
        """For how long *run*, and what it queues on the card, takes."""
        self.synchronize()
        started_s = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - started_s

    def median(self, run: Callable[[], Any], repeats: int = REPEATS) -> float:
        """The median of *repeats* such times after one that does not count; on a pretend card one time, which means nothing."""
        if self.pretends:
            return self.seconds(run)
        run()
        return statistics.median(self.seconds(run) for _ in range(repeats))

    def unload(self) -> None:
        """Everything off the card, and what nothing refers to gone."""
        import comfy.model_management as management

        management.unload_all_models()
        gc.collect()
        management.cleanup_models_gc()
        management.ram_cache().safe_point()
        management.soft_empty_cache()

    def locked(self) -> int:
        """Wait until nothing is left to be page-locked; the bytes that are."""
        import comfy.model_management as management

        pinner = management.manager().pinner
        for _ in range(3000):
            if pinner.stats().waiting_bytes == 0:
                break
            time.sleep(0.02)
        return pinner.stats().pinned_bytes


@contextlib.contextmanager
def card(pretends: bool, root: pathlib.Path) -> Iterator[None]:
    """A card to measure on: the real one, or one that is played. Raises ``SystemExit`` where there is none."""
    import torch

    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if pretends:
            sys.path.insert(0, str(root / "tests-unit" / "pretend_card"))
            from pretend import pretend_cards

            stack.enter_context(pretend_cards(1, PRETEND_BYTES))
        elif not torch.cuda.is_available():
            raise SystemExit("torch finds no card here: run this on one, or with --pretend, whose times mean nothing")
        yield
