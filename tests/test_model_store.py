"""Real servers that share a store of weights: restarts read no file, several keep one copy, and faults cost a read at most."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

import pytest
from live_server import ROOT
from model_workflows import STARTERS, run, with_starters
from opened_files import opened_files

from comfy.ram_model_cache.policy import RamCachePolicy
from comfy.ram_model_store import locks, uses
from comfy.ram_model_store.folder import MEMORY_FILE_SYSTEMS, PART_NAME, SHARED_MEMORY, StoreFolder, file_system_of
from comfy.ram_model_store.store import TABLE_ROOM_BYTES
from comfy.ram_model_store.uses import Found

if not os.path.isdir(SHARED_MEMORY) or file_system_of(os.stat(SHARED_MEMORY).st_dev) not in MEMORY_FILE_SYSTEMS:
    pytest.skip("there is no memory file system", allow_module_level=True)

CACHE = ("--ram-model-cache-mb", "1000", "--cache-none")
STARTER_BYTES = 22_500_000  # of one starter's parts in the store


@pytest.fixture
def store():
    """A folder for a store, of this test's own."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="keepwarm-test-", dir=SHARED_MEMORY))
    yield path / "store"
    shutil.rmtree(path)


def start(start_server, store, name="server", models=None, **more):
    """A server with the starters and the store; *models* is a folder of models that it shares with others."""
    if models is not None:
        base = pathlib.Path(more.pop("parent")) / name
        base.mkdir(exist_ok=True)
        if not (base / "models").exists():
            (base / "models").symlink_to(models)
    server = start_server(*CACHE, "--ram-model-store", str(store), name=name, **more)
    return server if models is not None else with_starters(server)


def parts(store):
    """The names of the complete parts."""
    return {path.name for path in store.iterdir() if PART_NAME.fullmatch(path.name)}


def kill(server):
    """End the server as the system does when it runs out of memory."""
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()


def tiers(receipts):
    return sorted(receipt["tier"] for receipt in receipts)


def test_after_a_kill_the_next_server_reads_no_model_file_and_makes_the_same_picture(start_server, store):
    first = start(start_server, store)
    checkpoint = first.base / "models" / "checkpoints" / STARTERS[0]
    pictures = [run(first, STARTERS[0], seed)[0] for seed in (1, 2)]
    assert len(parts(store)) == 3 and stat.S_IMODE(store.stat().st_mode) == 0o700
    kill(first)
    second = start_server(*CACHE, "--ram-model-store", str(store))
    with opened_files(checkpoint.parent) as opened:
        found = [run(second, STARTERS[0], seed) for seed in (1, 2)]
    assert [picture for picture, _ in found] == pictures and checkpoint.name not in opened
    assert tiers(found[0][1]) == ["store"] * 3 and tiers(found[1][1]) == ["ram"] * 3
    section = second.get("/caches")["store"]
    assert section["folder"] == str(store) and len(section["files"]) == 3
    assert all(file["hits"] == 1 and file["users"] == [second.process.pid] for file in section["files"])
    assert section["counters"]["hits"] == 3 and section["counters"]["stored"] == 0
    assert second.get("/caches")["models"]["stats"]["counters"]["read_bytes"] == 0


def test_freeing_memory_empties_the_store_and_a_server_without_one_has_none(start_server, store):
    server = start(start_server, store)
    picture = run(server, STARTERS[0], 1)[0]
    assert server.post("/free", {"unload_models": True, "free_memory": True})[0] == 200
    again, receipts = run(server, STARTERS[0], 1)
    assert again == picture and tiers(receipts) == ["disk"] * 3 and len(parts(store)) == 3
    plain = with_starters(start_server(*CACHE, name="plain"))
    assert run(plain, STARTERS[0], 1)[0] == picture and plain.get("/caches")["store"] == {"enabled": False}


def pss_bytes(server, store):
    """This process's share of the memory of files in *store*."""
    total, inside = 0, False
    for line in pathlib.Path(f"/proc/{server.process.pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = str(store) in line
        elif inside and line.startswith("Pss:"):
            total += 1024 * int(line.split()[1])
    return total


def test_three_servers_that_want_a_model_at_once_read_it_once_and_keep_one_copy(start_server, store, tmp_path):
    models = tmp_path / "models"
    (models / "checkpoints").mkdir(parents=True)
    for name in STARTERS:
        shutil.copy(ROOT / "models" / "checkpoints" / name, models / "checkpoints" / name)
    servers = [start(start_server, store, f"server{number}", models, parent=tmp_path) for number in range(3)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda server: run(server, STARTERS[0], 1), servers))
    assert len({picture for picture, _ in found}) == 1
    assert sorted(tier for _, receipts in found for tier in tiers(receipts)) == ["disk"] * 3 + ["store"] * 6
    stored_bytes = sum((store / name).stat().st_blocks * 512 for name in parts(store))
    mapped_bytes = sum(pss_bytes(server, store) for server in servers)
    assert 0.5 * stored_bytes < mapped_bytes <= 1.1 * stored_bytes
    file = servers[0].get("/caches")["store"]["files"][0]
    assert file["users"] == sorted(server.process.pid for server in servers)


def test_prompts_that_alternate_over_more_than_the_store_holds_are_right_on_two_servers(start_server, store, tmp_path):
    models = tmp_path / "models"
    (models / "checkpoints").mkdir(parents=True)
    names = [*STARTERS, "third.safetensors"]
    for name in names:
        shutil.copy(ROOT / "models" / "checkpoints" / (name if name in STARTERS else STARTERS[0]), models / "checkpoints" / name)
    cap = ("--ram-model-store-mb", "46", "--ram-model-cache-mb", "24", "--cache-none", "--ram-model-store", str(store))
    for name in ("a", "b", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "models").symlink_to(models)
    plain = start_server("--no-ram-model-cache", "--cache-none", name="plain")
    expected = {name: run(plain, name, 1)[0] for name in names}
    servers = [start_server(*cap, name=name) for name in ("a", "b")]
    found = [(name, *run(servers[turn % 2], name, 1)) for turn, name in enumerate(names * 3)]
    assert all(picture == expected[name] for name, picture, _ in found)
    assert any("store" in tiers(receipts) for _, _, receipts in found)
    assert sum((store / name).stat().st_blocks * 512 for name in parts(store)) <= 46 << 20
    assert not [path for path in store.iterdir() if path.name.endswith(".writing")]


def on_record(store):
    """Every use of a part by any server, oldest first."""
    folder = StoreFolder(str(store))
    with locks.books(folder), folder.opened() as opened:
        return uses.read(opened)


def foretold_reads(recorded, ends, cap_bytes, order):
    """How many parts are read where the policy alone decides what stays: of *recorded* uses, the n-th prompt's up to the n-th end.

    The order in which a checkpoint's parts are read is not on record; *order* are their places by size.
    """
    sizes = {use.name: use.size_bytes for use in recorded if use.size_bytes}
    policy, kept, reads = RamCachePolicy(), {}, 0
    for start, end in zip([0, *ends], ends):
        for use in recorded[start:end]:
            policy.request(use.name)
            if use.size_bytes:
                policy.learn(use.name, use.size_bytes, use.seconds)
        asked = {use.name for use in recorded[start:end] if use.found is not Found.SERVER}
        by_size = sorted(asked, key=lambda name: (sizes.get(name, cap_bytes), name))
        for name in [by_size[place] for place in order if place < len(by_size) and by_size[place] not in kept]:
            reads += 1
            decision = policy.decide(name, sizes.get(name, cap_bytes // 4) + TABLE_ROOM_BYTES, cap_bytes, kept)
            for victim in decision.victims:
                del kept[victim]
            kept.update({name: sizes.get(name, cap_bytes // 4)} if decision.admit else {})
    return reads


@pytest.mark.long
@pytest.mark.timeout(900)
def test_three_servers_over_more_than_the_store_holds_read_no_more_than_the_policy_foretells(start_server, store, tmp_path):
    models, cap_mb = tmp_path / "models", 54  # two of three models, and the tables of what is being written
    (models / "checkpoints").mkdir(parents=True)
    names = [*STARTERS, "third.safetensors"]
    for name in names:
        shutil.copy(ROOT / "models" / "checkpoints" / (name if name in STARTERS else STARTERS[0]), models / "checkpoints" / name)
    for name in ("a", "b", "c", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "models").symlink_to(models)
    plain = start_server("--no-ram-model-cache", "--cache-none", name="plain")
    expected = {name: run(plain, name, 1)[0] for name in names}
    flags = ("--ram-model-store-mb", str(cap_mb), "--ram-model-cache-mb", "24", "--cache-none", "--ram-model-store", str(store))
    servers = [start_server(*flags, name=name) for name in ("a", "b", "c")]
    in_turn, ends = [], []
    for turn in range(24):
        name = names[(turn + turn // 9) % 3]
        picture, receipts = run(servers[turn % 3], name, 1)
        assert picture == expected[name]
        in_turn += [receipt["tier"] for receipt in receipts]
        ends.append(len(on_record(store)))
    foretold = max(foretold_reads(on_record(store), ends, cap_mb << 20, order) for order in itertools.permutations(range(3)))
    print(f"in turn: {in_turn.count('disk')} of {len(in_turn)} parts read, {foretold} foretold")
    assert 0 < in_turn.count("disk") <= foretold

    def prompts(number):
        return [(name, *run(servers[number], name, 1)) for name in (names[number:] + names[:number]) * 3]

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = [one for some in pool.map(prompts, range(3)) for one in some]
    assert all(picture == expected[name] for name, picture, _ in found)
    asked = on_record(store)[ends[-1] :]
    read = sum(tiers(receipts).count("disk") for _, _, receipts in found)
    print(f"at once: {read} of {sum(len(receipts) for _, _, receipts in found)} parts read")
    assert read <= sum(use.found is Found.NOWHERE for use in asked), "what is there, or read by another server, is not read"
    assert sum((store / name).stat().st_blocks * 512 for name in parts(store)) <= cap_mb << 20
    assert not [path for path in store.iterdir() if path.name.endswith(".writing")]


def test_damage_between_two_servers_costs_a_read_and_one_line_each(start_server, store):
    first = start(start_server, store)
    picture = run(first, STARTERS[0], 1)[0]
    kill(first)
    names = sorted(parts(store))
    os.truncate(store / names[0], (store / names[0]).stat().st_size // 2)
    (store / names[1]).rename(store / "elsewhere")
    (store / names[1]).symlink_to(store / "elsewhere")
    with (store / names[2]).open("r+b") as file:
        file.seek(16)
        file.write(b"\xff")
    second = start_server(*CACHE, "--ram-model-store", str(store))
    again, receipts = run(second, STARTERS[0], 1)
    assert again == picture and tiers(receipts) == ["disk"] * 3 and parts(store) == set(names)
    assert second.log().count("was removed and is read again") == 3
    assert second.get("/caches")["store"]["counters"]["damaged"] == 3


def test_a_store_that_is_deleted_under_a_running_server_takes_nothing_from_it(start_server, store):
    server = start(start_server, store)
    picture = run(server, STARTERS[0], 1)[0]
    shutil.rmtree(store)
    again, receipts = run(server, STARTERS[0], 1)
    assert again == picture and tiers(receipts) == ["ram"] * 3
    run(server, STARTERS[1], 1)
    assert len(parts(store)) == 3, "the store is made again"
    assert not any(one["in_store"] for one in server.get("/caches")["store"]["mapped"] if "digits" in one["model"])


def test_a_folder_that_others_may_write_to_ends_the_start_with_what_to_do(start_server, store, tmp_path):
    store.mkdir(mode=0o777)
    store.chmod(0o777)
    with pytest.raises(RuntimeError, match="chmod it to 0700"):
        start_server(*CACHE, "--ram-model-store", str(store))
    with pytest.raises(RuntimeError, match="not in memory|chmod|belongs to"):
        start_server(*CACHE, "--ram-model-store", str(ROOT), name="disk")


def test_without_the_ram_model_cache_the_flag_says_that_it_does_nothing(start_server, store):
    server = start_server("--no-ram-model-cache", "--ram-model-store", str(store))
    assert "--ram-model-store has no effect" in server.log() and server.get("/caches")["store"] == {"enabled": False}
    assert not store.exists()


def test_a_warm_up_job_fills_the_store_for_the_server_that_starts_after_it(start_server, store, tmp_path):
    base = tmp_path / "server"
    (base / "models" / "checkpoints").mkdir(parents=True)
    shutil.copy(ROOT / "models" / "checkpoints" / STARTERS[0], base / "models" / "checkpoints")
    config = base / "preload.json"
    config.write_text(json.dumps({"version": "1.0", "models": {"checkpoints": [{"name": STARTERS[0], "enabled": True}]}}))
    flags = ["--cpu", *CACHE, "--ram-model-store", str(store), "--base-directory", str(base)]
    command = [sys.executable, str(ROOT / "main.py"), *flags, "--preload-config", str(config), "--preload-only"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(parts(store)) == 3
    server = start_server(*CACHE, "--ram-model-store", str(store))
    assert tiers(run(server, STARTERS[0], 1)[1]) == ["store"] * 3


SMALL = """#!/bin/sh
exec unshare -rm sh -c 'mount -t tmpfs -o size={size} none "$0" && exec "$@"' "{place}" "{python}" "$@"
"""


def test_a_file_system_that_is_full_leaves_models_in_private_memory(start_server, tmp_path):
    size_mb, place = 14, tmp_path / "small"  # for the largest part alone
    place.mkdir()
    python = tmp_path / "python"
    python.write_text(SMALL.format(size=f"{size_mb}m", place=place, python=sys.executable))
    python.chmod(0o755)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if subprocess.run([str(python), "-c", "pass"], capture_output=True, timeout=60).returncode == 0:
            server = start(start_server, place / "store", python=str(python))
            plain = with_starters(start_server("--no-ram-model-cache", name="plain"))
            for _ in range(2):
                picture, receipts = run(server, STARTERS[0], 1)
                assert picture == run(plain, STARTERS[0], 1)[0]
            assert tiers(receipts) == ["ram"] * 3 and "is not stored" in server.log()
            assert 0 < server.get("/caches")["store"]["bytes"] <= size_mb << 20
            return
    pytest.skip("no file system can be mounted here")
