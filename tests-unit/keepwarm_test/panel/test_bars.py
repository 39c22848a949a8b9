"""How full each tier is."""

import sys
from types import SimpleNamespace

import pytest
from panel_fakes import CPU, GPU

from custom_nodes.keepwarm.panel.bars import disk_bar, ram_bar, store_bar, vram_bar
from custom_nodes.keepwarm.panel.rows import Row, Tier

FILE = (("vae", "v"),)
ROWS = [
    Row("a", "a", "model", FILE, Tier.VRAM, ram_bytes=5, vram_bytes=9),
    Row("b", "b", "vae", (), Tier.RAM, ram_bytes=4),
    Row("c", "v", "vae", FILE, Tier.DISK, disk_bytes=20),
    Row("d", "w", "vae", (("vae", "w"),), Tier.DISK, disk_bytes=30),
]


def management(*devices):
    return SimpleNamespace(get_all_torch_devices=lambda: devices, get_total_memory=lambda device: 100, get_free_memory=lambda device: 60)


def test_devices_are_counted_together_and_the_cpu_has_no_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    bar = vram_bar(management(GPU, GPU), ROWS)
    assert (bar["used_bytes"], bar["room_bytes"], bar["free_bytes"]) == (9, 200, 120)
    assert vram_bar(management(CPU), ROWS) is None
    old = SimpleNamespace(get_torch_device=lambda: CPU)
    assert vram_bar(old, ROWS) is None


def test_no_device_is_asked_before_torch_is_there(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert vram_bar(SimpleNamespace(get_all_torch_devices=pytest.fail), ROWS) is None


def test_ram_is_of_the_cap_or_else_of_the_machine():
    memory = SimpleNamespace(total=1000, available=700)
    assert ram_bar(None, ROWS, memory) == {"used_bytes": 9, "room_bytes": 1000, "free_bytes": 700, "capped": False}
    cache = SimpleNamespace(stats=lambda: SimpleNamespace(cap_bytes=50))
    assert ram_bar(cache, ROWS, memory) == {"used_bytes": 9, "room_bytes": 50, "free_bytes": 700, "capped": True}


def test_stores_with_a_cap_are_counted_together_and_others_have_no_bar():
    def store(used_bytes, cap_bytes):
        return SimpleNamespace(used_bytes=lambda max_age_s: used_bytes * int(max_age_s), cap_bytes=cap_bytes)

    remote = SimpleNamespace()
    assert store_bar([], 1.0) is None and store_bar([("redis://host", remote)], 1.0) is None
    assert store_bar([("file:///a", store(4, 50)), ("redis://host", remote), ("file:///b", store(20, 10))], 2.0) == {
        "used_bytes": 48,
        "room_bytes": 60,
        "free_bytes": 12,
        "parts": [{"name": "file:///a", "used_bytes": 8, "room_bytes": 50}, {"name": "file:///b", "used_bytes": 40, "room_bytes": 10}],
    }


def test_the_disk_bar_counts_files_and_their_bytes_in_memory():
    assert disk_bar(ROWS) == {"used_bytes": 20, "room_bytes": 50, "files": 2}
