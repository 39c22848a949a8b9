"""Results in a folder: each tensor kept once, damage, the cap, full disks, and writers that are killed."""

import asyncio
import os
import pathlib
import socket
import subprocess
import sys

import pytest
from stored_values import context, provider, run, same, torch, value


def files(folder, kind):
    return [path for path in pathlib.Path(folder, "v1", kind).rglob("*") if path.is_file()]


def test_folder_the_same_tensor_is_kept_once(tmp_path):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        await one.on_store(context(1), value())
        await one.on_store(context(2), value())

    asyncio.run(scenario())
    assert len(files(tmp_path, "blobs")) == 1 and len(files(tmp_path, "entries")) == 2 and not files(tmp_path, "tmp")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "grow", "gone"])
@pytest.mark.parametrize("kind", ["entries", "blobs"])
def test_folder_damage_is_a_miss_with_a_warning_and_can_be_stored_over(tmp_path, kind, damage, caplog):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        await one.on_store(context(), value())
        (path,) = files(tmp_path, kind)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        contents = {"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b"", "grow": bytes(data) + b"x"}
        path.unlink() if damage == "gone" else path.write_bytes(contents[damage])
        caplog.clear()
        assert await one.on_lookup(context()) is None
        assert damage == "gone" or len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())

    asyncio.run(scenario())


def test_folder_the_cap_holds_and_the_least_used_goes(tmp_path):
    async def scenario():
        one = provider(f"file://{tmp_path}?max_gb=0.01")
        for number in range(60):
            await one.on_store(context(number), value(250_000, number))
        total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert total <= 0.01 * 1024**3
        assert same(await one.on_lookup(context(59)), value(250_000, 59)) and await one.on_lookup(context(0)) is None

    asyncio.run(scenario())


def test_folder_what_it_takes_is_counted_and_what_others_write_is_noticed_later(tmp_path):
    async def scenario():
        one, other = provider(f"file://{tmp_path}?max_gb=0.01"), provider(f"file://{tmp_path}")
        assert (one.store.used_bytes(0.0), one.store.cap_bytes) == (0, int(0.01 * 1024**3))
        await one.on_store(context(1), value(1000, 1))
        mine = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert one.store.used_bytes(3600.0) == one.store.used_bytes(-1.0) == mine > 1000
        await other.on_store(context(2), value(1000, 2))
        assert one.store.used_bytes(3600.0) == mine
        assert one.store.used_bytes(-1.0) == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > mine

    asyncio.run(scenario())


def test_folder_a_value_larger_than_the_cap_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="max_gb"):
        run(provider(f"file://{tmp_path}?max_gb=0.0001").on_store(context(), value()))
    assert not files(tmp_path, "blobs") and not files(tmp_path, "tmp")


def test_folder_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    one = provider(f"file://{tmp_path}")
    run(one.on_store(context(1), value()))
    before = sorted(tmp_path.rglob("*"))

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        run(one.on_store(context(2), value(fill=2)))
    monkeypatch.undo()
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [path for path in before if path.is_file()]


@pytest.mark.parametrize("kind", ["pipe", "link", "socket"])
@pytest.mark.parametrize("where", ["entries", "blobs"])
def test_folder_anything_but_a_plain_file_is_a_miss_at_once(tmp_path, kind, where, caplog):
    async def scenario():
        one = provider(f"file://{tmp_path}/store")
        await one.on_store(context(), value())
        (path,) = files(tmp_path / "store", where)
        data = path.read_bytes()
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        else:
            before = os.getcwd()
            os.chdir(path.parent)  # a socket's path may not be long
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path.name)
            os.chdir(before)
        assert await asyncio.wait_for(one.on_lookup(context()), 5) is None
        assert any("removed" in record.getMessage() for record in caplog.records)
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())

    asyncio.run(scenario())


WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import torch
from comfy_execution.cache_provider import CacheContext, CacheValue
from custom_nodes.keepwarm.activation import ServerTraits, make_provider
from custom_nodes.keepwarm.settings import Settings
from custom_nodes.keepwarm.store_urls import parse_url
async def main():
    one = make_provider(parse_url(sys.argv[2]), Settings((), None, "", False), ServerTraits(True, True))
    for number in range(int(sys.argv[3]), 100000):
        key = f"{number % 50:064x}"
        await one.on_store(CacheContext("1", "Node", key), CacheValue([[torch.full((300_000,), float(number % 50))]]))
        print(number % 50, flush=True)
asyncio.run(main())
"""


def test_folder_writers_killed_at_any_moment_leave_no_wrong_entry(tmp_path):
    """Two processes write the same keys; both are killed in the middle; what they said to be stored is right, and nothing is wrong."""
    root = str(pathlib.Path(__file__).resolve().parents[2])
    for round_number in range(2):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, root, f"file://{tmp_path}", str(round_number * 25 + start)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for start in (0, 10)
        ]
        stored = {int(writer.stdout.readline()) for writer in writers for _ in range(8)}
        for writer in writers:
            writer.kill()
        for writer in writers:
            stored |= {int(line) for line in writer.stdout.read().split("\n")[:-1]}
            writer.wait()
            writer.stdout.close()

        async def check(stored=stored):
            one = provider(f"file://{tmp_path}")
            for number in range(50):
                found = await one.on_lookup(context(number))
                assert found is not None or number not in stored
                assert found is None or torch.equal(found.outputs[0][0], torch.full((300_000,), float(number)))
            assert one.measures.snapshot()["rejected"] == 0

        asyncio.run(check())


LINKED = ["v1", "v1/entries", "v1/blobs", "v1/entries/00", "v1/tmp"]


@pytest.mark.parametrize("linked", LINKED)
def test_folder_links_in_a_store_lead_nowhere(tmp_path, linked, caplog):
    """Whatever folder of a store is a link: nothing at its other end is read, written or removed, evictions and left-overs included."""

    async def scenario():
        writer = provider(f"file://{tmp_path}/other")
        await writer.on_store(context(), value())
        temporary = tmp_path / "other" / "v1" / "tmp" / ("a" * 32)
        temporary.write_bytes(b"x")
        os.utime(temporary, (0, 0))
        (tmp_path / "other" / "v1" / "mine.txt").write_text("mine")
        before = {path: path.read_bytes() for path in (tmp_path / "other").rglob("*") if path.is_file()}
        (tmp_path / "store" / linked).parent.mkdir(parents=True)
        (tmp_path / "store" / linked).symlink_to(tmp_path / "other" / linked)
        one = provider(f"file://{tmp_path}/store?max_gb=0.001")
        assert await one.on_lookup(context()) is None
        for number in range(8):
            try:
                await one.on_store(context(number), value(200_000, float(number)))
            except NotADirectoryError as error:
                assert "no links" in str(error)
        await one.store.discard([path.name for path in before if path.parent.parent.name == "blobs"])
        assert {path: path.read_bytes() for path in (tmp_path / "other").rglob("*") if path.is_file()} == before

    asyncio.run(scenario())


def test_folder_only_what_the_layout_names_is_removed(tmp_path):
    async def scenario():
        one = provider(f"file://{tmp_path}?max_gb=0.001")
        await one.on_store(context(), value(10_000))
        names = ["v1/notes.txt", "v1/entries/notes", "v1/entries/00/notes.txt", "v1/blobs/zz/" + "0" * 64, "v1/entries/00/" + "ff" * 32]
        names += ["v1/tmp/notes.txt", "v1/entries/00/deep/" + "00" * 32]
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(bytes(200_000))
            os.utime(tmp_path / name, (0, 0))
        (tmp_path / "outside").write_bytes(bytes(200_000))
        (tmp_path / "v1" / "entries" / "00" / ("00" * 30 + "ffff")).symlink_to(tmp_path / "outside")
        for number in range(8):
            await one.on_store(context(number), value(100_000, number))
        assert all((tmp_path / name).stat().st_size == 200_000 for name in [*names, "outside"])
        assert await one.on_lookup(context(7)) is not None and await one.on_lookup(context(0)) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["entries", "blobs"])
def test_folder_a_folder_in_the_place_of_a_file_is_a_miss_and_not_an_error(tmp_path, where):
    async def scenario():
        one = provider(f"file://{tmp_path}")
        await one.on_store(context(), value())
        (path,) = files(tmp_path, where)
        path.unlink()
        path.mkdir()
        assert await one.on_lookup(context()) is None
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())

    asyncio.run(scenario())
