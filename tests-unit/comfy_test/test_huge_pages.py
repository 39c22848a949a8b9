"""Huge pages are asked for only as far as the system has some ready."""

import mmap
import sys

import pytest

from comfy import huge_pages
from comfy.huge_pages import HUGE_PAGE_BYTES, USED_SHARE, advise_huge_pages, free_huge_bytes
from comfy.weight_reader import plain_memory

PAGE = mmap.PAGESIZE
LINE = "Node {}, zone {:>8} 5000 100 0 0 0 0 0 0 30 {} {}\n"


class Mapping:
    """Notes what is advised."""

    def __init__(self):
        self.advised = []

    def madvise(self, option, start, length):
        assert option == mmap.MADV_HUGEPAGE and start % PAGE == 0 and length > 0
        self.advised.append((start, length))


@pytest.fixture
def buddies(tmp_path, monkeypatch):
    """Sets how many free blocks of 2 MiB and 4 MiB each of two zones has."""
    path = tmp_path / "buddyinfo"
    monkeypatch.setattr(free_huge_bytes, "__defaults__", (str(path),))

    def has(two, four):
        path.write_text(LINE.format(0, "DMA32", two, four) + LINE.format(1, "Normal", two, four))

    return has


@pytest.mark.skipif(PAGE != 4096, reason="the blocks' sizes are those of 4 KiB pages")
def test_free_blocks_of_all_zones_count_from_the_size_of_a_huge_page(buddies):
    buddies(3, 5)
    assert free_huge_bytes() == 2 * (3 * (2 << 20) + 5 * (4 << 20))
    buddies(0, 0)
    assert free_huge_bytes() == 0


def test_a_system_that_does_not_tell_is_asked_for_everything(tmp_path, monkeypatch):
    assert free_huge_bytes(str(tmp_path / "none")) is None
    (tmp_path / "odd").write_text("Node 0, zone DMA" + " many" * 11 + "\n")
    assert free_huge_bytes(str(tmp_path / "odd")) is None
    monkeypatch.setattr(huge_pages, "free_huge_bytes", lambda: None)
    mapping = Mapping()
    assert advise_huge_pages(mapping, PAGE, 5 * HUGE_PAGE_BYTES + 1) == 5 * HUGE_PAGE_BYTES
    assert mapping.advised == [(PAGE, 5 * HUGE_PAGE_BYTES)]


@pytest.mark.parametrize(("free", "wanted", "advised"), [(100, 8, 8), (10, 100, int(10 * USED_SHARE)), (0, 100, 0), (1, 100, 0)])
def test_no_more_is_advised_than_lies_in_free_blocks(monkeypatch, free, wanted, advised):
    monkeypatch.setattr(huge_pages, "free_huge_bytes", lambda: free * HUGE_PAGE_BYTES)
    mapping = Mapping()
    assert advise_huge_pages(mapping, 0, wanted * HUGE_PAGE_BYTES) == advised * HUGE_PAGE_BYTES
    assert mapping.advised == ([(0, advised * HUGE_PAGE_BYTES)] if advised else [])


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")
@pytest.mark.parametrize("free", [None, 0, 3])
def test_memory_for_weights_works_with_any_share_of_huge_pages(monkeypatch, free):
    assert free_huge_bytes() is not None
    monkeypatch.setattr(huge_pages, "free_huge_bytes", lambda: None if free is None else free * HUGE_PAGE_BYTES)
    memory = plain_memory(5 * HUGE_PAGE_BYTES + 12345)
    memory.fill_(7)
    assert memory.numel() == 5 * HUGE_PAGE_BYTES + 12345 and int(memory[-1]) == 7 == int(memory[0])
