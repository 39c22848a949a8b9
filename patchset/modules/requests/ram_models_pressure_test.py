"""Models kept in RAM make way when RAM runs short."""

import asyncio

import pytest
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

import comfy.ram_models_pressure as pressure
from comfy.ram_models.cache import Entry
from comfy.ram_models.loaders import RamModels

GIB = 1024**3


class Machine:
    """*free* GiB are to be had, and what is let go comes on top; three models of 1 GiB are kept."""

    def __init__(self, monkeypatch, free):
        self.models = RamModels(10 * GIB)
        for number in range(3):
            key = ("model", ((f"/models/{number}", 0, 0, 0, 0),), ())
            self.models.cache.ask([key])
            self.models.cache.put(key, Entry(object(), 1.0 + number, lambda: GIB))
        monkeypatch.setattr(pressure, "ram_models", self.models)
        monkeypatch.setattr(pressure, "available_bytes", lambda: free * GIB + 3 * GIB - pressure.kept_bytes())
        monkeypatch.setattr(pressure, "headroom_bytes", lambda: 2 * GIB)

    def kept(self):
        return pressure.kept_bytes() // GIB


@pytest.mark.parametrize(("free", "kept"), [(9, 3), (2, 3), (1, 2), (0.5, 1), (-9, 0)])
def test_after_a_node_the_headroom_is_free(monkeypatch, free, kept):
    machine = Machine(monkeypatch, free)

    @pressure.gives_way_after
    async def execute(value):
        return value

    assert asyncio.run(execute(7)) == 7 and machine.kept() == kept


def test_what_is_worth_least_goes_first(monkeypatch):
    machine = Machine(monkeypatch, 1)
    pressure.give_way()
    assert [key[1][0][0] for key in machine.models.cache.entries] == ["/models/1", "/models/2"]


def test_room_is_made_before_a_file_is_read(monkeypatch, tmp_path):
    machine, seen = Machine(monkeypatch, 3), []
    with open(tmp_path / "a", "wb") as file:
        file.truncate(2 * GIB)

    @pressure.makes_room
    def load(ckpt_path):
        seen.append(machine.kept())

    load(tmp_path / "a")
    load([tmp_path / "a", tmp_path / "none"])
    load(ckpt_path=tmp_path / "none")
    assert seen == [2, 2, 2]


def test_off_means_off(monkeypatch):
    monkeypatch.setattr(pressure, "ram_models", RamModels(0))
    assert pressure.makes_room(len) is len and pressure.gives_way_after(len) is len


def test_the_container_s_limit_counts(monkeypatch, tmp_path):
    for name, text in (("max", str(3 * GIB)), ("now", str(2 * GIB)), ("stat", f"anon 1\ninactive_file {GIB // 2}\n")):
        (tmp_path / name).write_text(text)
    rows = [*(str(tmp_path / name) for name in ("max", "now", "stat")), "inactive_file"]
    monkeypatch.setattr(pressure, "LIMITS", [rows])
    monkeypatch.setattr(pressure.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 9 * GIB, "total": 64 * GIB}))
    assert pressure.available_bytes() == GIB + GIB // 2
    (tmp_path / "max").write_text("max\n")
    assert pressure.available_bytes() == 9 * GIB
    assert pressure.headroom_bytes() >= int(64 * GIB * 0.05)
