"""Stores of results that somebody else writes to, and servers of results that mean no good: right pictures, in time, in bounds."""

import asyncio
import os
import shutil
import time

import pytest
from hostile_stores import HostileRedis, HostileS3
from memory_limits import little_memory
from result_places import light_workflow, pixels
from store_mutations import MUTATIONS, blob_of, entry_files, forge_blob, forge_inline, mutate
from stored_values import context, provider, same, value
from watched_server import queue_problem

MIB = 1 << 20
RSS_GROWTH_BYTES = 400 * MIB
LIMIT_BYTES = 3000 * MIB
PROMPT_S = 20.0


def mutations(area, report, dice, seconds, folder, key):
    """Mutate one file of a small store at a time: what is found is what was stored, or nothing."""
    from attack_report import AreaResult

    result = AreaResult(area)
    report.results.append(result)
    values = {number: value(size, float(number)) for number, size in enumerate((10, 1000, 100_000, 300_000))}

    async def attack():
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s or result.tries <= 10:
            shutil.rmtree(folder, ignore_errors=True)
            one = provider(f"file://{folder}?max_value_mb=8", key)
            for number, stored in values.items():
                await one.on_store(context(number), stored)
            for _ in range(dice.randint(1, 3)):
                told = mutate(folder, dice)
            for number, stored in values.items():
                result.tries += 1
                found = await asyncio.wait_for(one.on_lookup(context(number)), 10)
                if found is not None and not same(found, stored):
                    result.wrong_results.append(f"{told}: another result for {number}")
            if one.measures.snapshot()["errors"]:
                result.wrong_results.append(f"{told}: an error of the store")

    asyncio.run(attack())
    assert not result.wrong_results, result.wrong_results[:5]
    assert result.tries > 10


@pytest.mark.parametrize("key", [None, b"secret"], ids=["plain", "sealed"])
def test_a_sample_of_store_mutations(report, dice, tmp_path, key):
    mutations(f"store mutations sample{', sealed' if key else ''}", report, dice, 1.0, tmp_path / "store", key)


@pytest.mark.attack
@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", [None, b"secret"], ids=["plain", "sealed"])
def test_store_mutations(report, dice, tmp_path, seconds, key):
    mutations(f"store mutations{', sealed' if key else ''}", report, dice, seconds / 2, tmp_path / "store", key)


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_a_server_over_a_mutated_store(attacked, start_server, dice, tmp_path, seconds):
    """A server fills a folder; every entry or blob of it is changed; another server gives the same pictures from it or computes them."""
    url, rounds = f"file://{tmp_path}/shared", range(1000, 1000 + max(6, int(seconds / 3)))
    first = start_server("--cache-provider", url, name="first")
    made = {color: pixels(first.run(light_workflow(color)).file_bytes()) for color in rounds}
    first.stop()
    for _ in range(len(made) * 3):
        mutate(tmp_path / "shared", dice)
    server = attacked("mutated store", "--cache-provider", url)
    server.server.run(light_workflow(1))
    with server.watch() as result:
        for color in rounds:
            result.tries += 1
            run = server.server.run(light_workflow(color))
            if pixels(run.file_bytes()) != made[color]:
                result.wrong_results.append(f"another picture for color {color}")
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


def hostile_servers(attacked, area, servers, colors):
    """Each server of *servers* behind a live server of its own: every prompt gives a picture, within the budget for providers."""
    for hostile, url in servers:
        with hostile:
            server = attacked(f"{area}: {hostile.mode}", "--cache-provider", url.format(port=hostile.port))
            assert not queue_problem(server.server)  # imports what it needs
            with server.watch() as result:
                for color in colors:
                    began_s = time.monotonic()
                    run = server.server.run(light_workflow(color))
                    result.tries += 1
                    if not run.of_type("execution_success") or not run.file_bytes():
                        result.wrong_results.append(f"no picture for color {color}")
                    if time.monotonic() - began_s > PROMPT_S:
                        result.wrong_results.append(f"color {color} took {time.monotonic() - began_s:.1f} s")
            server.server.stop()
            server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


@pytest.mark.attack
@pytest.mark.timeout(580)
@pytest.mark.parametrize("kind", ["redis", "s3"])
def test_hostile_servers(attacked, dice, seconds, monkeypatch, kind):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    made, url = {
        "redis": (HostileRedis, "redis://127.0.0.1:{port}?max_value_mb=64"),
        "s3": (HostileS3, "s3://bucket/x?endpoint=http://127.0.0.1:{port}&region=us-east-1&max_value_mb=64"),
    }[kind]
    modes = [mode for mode in made.MODES if "blobs" not in mode]
    chosen = dice.sample(modes, max(2, min(len(modes), int(seconds / 6))))
    hostile_servers(attacked, kind, ((made(mode, dice=dice), url) for mode in chosen), (1, 2, 3))


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_unsealed_entries_of_wrong_shapes_fail_no_prompt(attacked, start_server, tmp_path):
    url = f"file://{tmp_path}/shared"
    made = pixels(start_server("--cache-provider", url, name="first").run(light_workflow(7)).file_bytes())
    entries = entry_files(tmp_path / "shared")
    for path, shape in zip(entries, ([3], [1, 3, 64, 48], [2, 2, 2, 2, 3], [0]), strict=False):
        path.write_bytes(forge_inline(path.name, shape))
    server = attacked("wrong shapes", "--cache-provider", url)
    with server.watch() as result:
        run = server.server.run(light_workflow(7))
        result.tries += len(entries)
        if pixels(run.file_bytes()) != made:
            result.wrong_results.append("another picture")
    assert "cannot have; it is ignored" in server.server.log()
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


def many_pictures(count):
    """*count* small pictures, each into an output of its own."""
    prompt = {}
    for number in range(count):
        picture = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": number}}
        prompt |= {f"a{number}": picture, f"b{number}": {"class_type": "PreviewImage", "inputs": {"images": [f"a{number}", 0]}}}
    return prompt


@pytest.mark.attack
@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", ["", "secret"], ids=["plain", "sealed"])
def test_sparse_entries_with_little_memory(attacked, start_server, tmp_path, key):
    """120 entries are large files of holes, or want tensors that are: a server of 3 GB runs the prompt as without them."""
    url, environment = f"file://{tmp_path}/shared", {"KEEPWARM_CACHE_KEY": key}
    start_server("--cache-provider", url, name="first", environment=environment).run(many_pictures(120))
    entries = entry_files(tmp_path / "shared")
    assert len(entries) == 120
    for number, path in enumerate(entries):
        with path.open("wb") as stream:
            if number % 3 == 0 and not key:
                stream.write(forge_blob(path.name, 200 * MIB))
                blob = blob_of(tmp_path / "shared", path.name)
                blob.parent.mkdir(parents=True, exist_ok=True)
                with blob.open("wb") as holes:
                    holes.truncate(200 * MIB)
                continue
            stream.write(b"KWE1" + (1000).to_bytes(4, "big"))
            stream.truncate((60, 128)[number % 2] * MIB)
    server = attacked(f"sparse entries{', sealed' if key else ''}", "--cache-provider", url, environment=environment)
    live = server.server
    assert not queue_problem(live)
    with little_memory(live.process.pid, LIMIT_BYTES), server.watch() as result:
        run = live.run(many_pictures(120), 120)
        result.tries += 120
        if not run.of_type("execution_success") or len([name for name in run.executed if name.startswith("a")]) != 120:
            result.wrong_results.append(f"{len(run.executed)} nodes ran")
    server.check(result, rss_growth_bytes=1500 * MIB)


def test_every_mutation_changes_something(dice, tmp_path):
    async def fill(folder):
        one = provider(f"file://{folder}")
        for number in range(3):
            await one.on_store(context(number), value(100_000, float(number)))

    for name in MUTATIONS:
        folder = tmp_path / name.replace(" ", "-")
        asyncio.run(fill(folder))
        before = snapshot(folder)
        MUTATIONS[name](folder, dice)
        assert snapshot(folder) != before, name


def snapshot(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and not path.is_symlink()
        found[str(path)] = (os.lstat(path).st_mode, path.stat().st_size, path.read_bytes()[:1_000_000]) if is_file else os.path.islink(path)
    return found
