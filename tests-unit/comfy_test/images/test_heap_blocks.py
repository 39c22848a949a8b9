"""Memory that a video's layers have freed: the system has it back, and the C library's settings are put back."""

import platform
import subprocess
import sys
import textwrap

import pytest
import torch

from comfy.images.heap_blocks import BLOCK_BYTES, MMAP_THRESHOLD, OF_THE_USER, TRIM_THRESHOLD, USUAL_BYTES, BlockSizes, _block_sizes

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of another C library")
# Blocks of 8 MiB, each below a small one that stays, are freed; what of them is still resident, in MiB.
PROGRAM = """
import contextlib, torch
from comfy.images.heap_blocks import activations_on

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

torch.empty(16 << 20, dtype=torch.uint8)  # freed at once: from now on the heap serves less than 16 MiB
before = resident_mib()
with {context}:
    pairs = [(torch.ones(8 << 20, dtype=torch.uint8), torch.ones(100_000, dtype=torch.uint8)) for _ in range(20)]
    held = resident_mib() - before
    kept = [small for _, small in pairs]
    del pairs
    print(held, resident_mib() - before)
"""


@needs_glibc
@pytest.mark.parametrize(
    ("context", "least", "most"),
    [('activations_on(torch.device("cpu"))', 0, 30), ('activations_on(torch.device("meta"))', 100, 300)],
    ids=["a video on the CPU", "elsewhere"],
)
def test_what_is_freed_between_blocks_in_use_is_given_back(context: str, least: float, most: float) -> None:
    program = textwrap.dedent(PROGRAM.format(context=context))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    held, left = map(float, done.stdout.split())
    assert held > 150
    assert least <= left <= most


def test_settings_change_for_the_first_user_and_back_after_the_last() -> None:
    asked: list[tuple[int, int]] = []
    sizes = BlockSizes(lambda option, value: asked.append((option, value)) or 1)
    inside = [(MMAP_THRESHOLD, BLOCK_BYTES), (TRIM_THRESHOLD, 2 * BLOCK_BYTES)]
    usual = [(MMAP_THRESHOLD, USUAL_BYTES), (TRIM_THRESHOLD, 2 * USUAL_BYTES)]
    with sizes.returned_at_once():
        with pytest.raises(RuntimeError), sizes.returned_at_once():
            raise RuntimeError
        assert asked == inside
    assert asked == inside + usual
    with sizes.returned_at_once():
        assert asked == inside + usual + inside


@needs_glibc
@pytest.mark.parametrize("name", OF_THE_USER)
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _block_sizes.__wrapped__()._set_option is not None
    monkeypatch.setenv(name, "1")
    assert _block_sizes.__wrapped__()._set_option is None


def test_other_c_libraries_are_left_alone() -> None:
    with BlockSizes(None).returned_at_once():
        assert torch.ones(3).sum() == 3
