"""Memory that layers have freed: a video's goes back to the system, a step's stays for the next, and the C library's settings come back."""

import platform
import resource
import subprocess
import sys
import textwrap

import pytest
import torch

from comfy.residency.host_heap import MMAP_THRESHOLD, OF_THE_USER, TRIM_THRESHOLD, Freed, HostHeap, _host_heap

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of another C library")
# Blocks of 8 MiB, each below a small one that stays, are freed; what of them is still resident, in MiB.
PROGRAM = """
import contextlib, torch
from comfy.residency.host_heap import activations_returned

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
    [('activations_returned(torch.device("cpu"))', 0, 30), ('activations_returned(torch.device("meta"))', 100, 300)],
    ids=["a video on the CPU", "elsewhere"],
)
def test_what_is_freed_between_blocks_in_use_is_given_back(context: str, least: float, most: float) -> None:
    program = textwrap.dedent(PROGRAM.format(context=context))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    held, left = map(float, done.stdout.split())
    assert held > 150
    assert least <= left <= most


# Twelve layers, each of which makes 90 MiB of blocks and frees them; how many pages the last ten brought in.
STEPS = """
import ctypes, resource, torch
from comfy.residency.host_heap import activations_kept

heap = ctypes.CDLL(None)
heap.malloc.restype = ctypes.c_void_p
heap.malloc.argtypes = [ctypes.c_size_t]
heap.free.argtypes = [ctypes.c_void_p]

def layer():
    blocks = [heap.malloc(9 << 20) for _ in range(10)]
    for block in blocks:
        ctypes.memset(block, 1, 9 << 20)
    for block in blocks:
        heap.free(block)

heap.free(heap.malloc(16 << 20))  # from now on the heap serves less than 16 MiB
with activations_kept(torch.device("{device}")):
    layer(), layer()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        layer()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@needs_glibc
def test_what_a_step_frees_serves_the_next_one() -> None:
    def faults(device: str) -> int:
        program = textwrap.dedent(STEPS.format(device=device))
        return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120).stdout)

    of_a_layer = 90 * 2**20 // resource.getpagesize()
    assert faults("meta") > 9 * of_a_layer  # the C library's own settings
    assert faults("cpu") < of_a_layer


def test_settings_change_for_the_first_user_and_back_after_the_last() -> None:
    asked: list[tuple[int, int]] = []
    heap = HostHeap(lambda option, value: asked.append((option, value)) or 1)
    returned, kept, usual = ([(MMAP_THRESHOLD, one.value[0]), (TRIM_THRESHOLD, one.value[1])] for one in Freed)
    with heap.treats(Freed.RETURNED):
        with pytest.raises(RuntimeError), heap.treats(Freed.RETURNED):
            raise RuntimeError
        assert asked == returned
    assert asked == returned + usual
    with heap.treats(Freed.KEPT):
        assert asked == returned + usual + kept
        with heap.treats(Freed.RETURNED):  # a preview of a video
            assert asked == returned + usual + kept + returned
        assert asked == returned + usual + kept + returned + kept
    assert asked == returned + usual + kept + returned + kept + usual


@needs_glibc
@pytest.mark.parametrize("name", OF_THE_USER)
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _host_heap.__wrapped__()._set_option is not None
    monkeypatch.setenv(name, "1")
    assert _host_heap.__wrapped__()._set_option is None


def test_other_c_libraries_are_left_alone() -> None:
    with HostHeap(None).treats(Freed.RETURNED):
        assert torch.ones(3).sum() == 3
