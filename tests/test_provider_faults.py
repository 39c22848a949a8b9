"""What may happen to cache providers, on real components and with the usual limits: every prompt's result is right, and in time."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from live_server import Client
from result_places import light_workflow, pixels

pytestmark = pytest.mark.timeout(300)
# What all waiting for providers may cost one prompt, and 10 % more.
BUDGET_S = 5.0 * 1.1
ALL_NODES = ["image", "inverted", "save", "scaled"]


def timed_run(server, prompt):
    """(run, seconds from the request to the last message)."""
    began = time.monotonic()
    run = server.run(prompt)
    return run, time.monotonic() - began


def numbers(server):
    """What ``GET /caches`` says of the one provider."""
    (one,) = server.get("/caches")["results"]["providers"]
    return one


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What prompts give and how long they take without providers: ``plain(workflow, …)`` is a list of (picture data, seconds)."""
    from live_server import LiveServer

    server = LiveServer(tmp_path_factory.mktemp("plain"))
    server.run(light_workflow(1 << 20))

    def run(*workflows):
        timed = [timed_run(server, workflow) for workflow in workflows]
        return [(pixels(one.file_bytes()), took_s) for one, took_s in timed]

    yield run
    server.stop()


@pytest.fixture
def start_odd(start_server, tmp_path):
    """Starts a server with the provider of ``odd_provider.py`` in a mode."""

    def start(mode, name="odd"):
        packs = tmp_path / name / "custom_nodes"
        packs.mkdir(parents=True)
        shutil.copy(pathlib.Path(__file__).parent / "odd_provider.py", packs)
        return start_server(
            name=name,
            environment={
                "ODD_PROVIDER": mode,
                "ODD_PROVIDER_NOTES": str(tmp_path / "notes"),
                "ODD_PROVIDER_SWITCH": str(tmp_path / "switch"),
            },
        )

    return start


@pytest.mark.parametrize("mode", ["raises", "exits", "cancels", "hangs", "blocks", "garbage"])
def test_a_provider_that_misbehaves_costs_the_budget_at_most(start_odd, tmp_path, plain, mode):
    server = start_odd(mode)
    server.run(light_workflow(0))
    expected = plain(*map(light_workflow, (1, 2, 3)))
    (tmp_path / "switch").touch()
    for color, (picture, plain_s) in zip((1, 2, 3), expected):
        budget_s = BUDGET_S if color < 3 else 0.5
        run, took_s = timed_run(server, light_workflow(color))
        assert sorted(run.executed) == ALL_NODES and run.of_type("execution_success")
        assert pixels(run.file_bytes()) == picture
        # After three failures it is left alone.
        assert took_s <= plain_s + budget_s, f"prompt {color} took {took_s:.2f} s, without providers {plain_s:.2f} s"
        print(f"{mode}: prompt {color} {took_s:.2f} s, without providers {plain_s:.2f} s")
    one = numbers(server)
    if mode == "garbage":
        assert "it is ignored" in server.log() and one["errors"] >= 3
    else:
        assert one["errors"] >= 3 and one["state"] != "closed" and one["hits"] == 0


def test_redis_killed_while_a_lookup_is_on_its_way(start_server, redis, plain):
    server = start_server("--cache-provider", f"redis://127.0.0.1:{redis.port}")
    server.run(light_workflow(1))
    ((picture, plain_s),) = plain(light_workflow(2))
    redis.freeze()
    killer = threading.Timer(1.0, redis.stop)
    killer.start()
    run, took_s = timed_run(server, light_workflow(2))
    killer.join()
    assert sorted(run.executed) == ALL_NODES and pixels(run.file_bytes()) == picture
    assert took_s <= plain_s + BUDGET_S
    assert numbers(server)["errors"] >= 1


def redis_cli(redis, *words):
    subprocess.run(["redis-cli", "-p", str(redis.port), *words], check=True, capture_output=True, timeout=20)


def test_redis_killed_while_stores_are_on_their_way_and_restarted(start_server, redis, plain):
    url = f"redis://127.0.0.1:{redis.port}"
    server = start_server("--cache-provider", url, name="one")
    server.run(light_workflow(1))
    stores = numbers(server)["stores"]
    assert stores == 3
    ((picture, plain_s),) = plain(light_workflow(2))
    # Lookups are answered, whatever writes waits.
    redis_cli(redis, "client", "pause", "60000", "write")
    run, took_s = timed_run(server, light_workflow(2))
    assert sorted(run.executed) == ALL_NODES and pixels(run.file_bytes()) == picture
    assert took_s <= plain_s + BUDGET_S
    one = numbers(server)
    assert one["stores"] == stores and one["queued"] == 3 and one["errors"] == 0
    redis.stop()
    wait_for(lambda: numbers(server)["errors"] >= 3)
    assert timed_run(server, light_workflow(3))[1] <= plain_s + BUDGET_S
    redis.start()
    # The circuit is open for 15 seconds; then one call finds out that the server is back.
    color = iter(range(100, 200))
    wait_for(lambda: server.run(light_workflow(next(color))) and numbers(server)["stores"] > stores, pause_s=1.0)
    last = server.run(light_workflow(500))
    assert numbers(server)["state"] == "closed"
    wait_for(lambda: not numbers(server)["queued"])
    served = start_server("--cache-provider", url, name="two").run(light_workflow(500))
    assert served.executed == ["save"] and pixels(served.file_bytes()) == pixels(last.file_bytes())


def wait_for(condition, timeout_s=40.0, pause_s=0.05):
    """Until *condition()* holds; fails the test when it does not in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "waited in vain"
        time.sleep(pause_s)


@contextlib.contextmanager
def full_file_system(folder):
    """A file system of 2 MB at *folder*; gives a function that makes it large enough."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a file system is not permitted here: {mounted.stderr.strip()}")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def picture_of(size, color):
    return {
        "image": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": color}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["image", 0], "filename_prefix": "full"}},
    }


def left_behind(folder):
    return [path for path in (folder / "v1" / "tmp").rglob("*") if path.is_file()]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a file system to fill")
def test_on_a_full_disk_only_sharing_is_lost(start_server, tmp_path, plain):
    folder = tmp_path / "shared"
    folder.mkdir()
    with full_file_system(folder) as grow:
        server = start_server("--cache-provider", f"file://{folder}", name="one")
        small = server.run(picture_of(64, 1))
        ((picture, plain_s),) = plain(picture_of(512, 2))
        run, took_s = timed_run(server, picture_of(512, 2))
        assert pixels(run.file_bytes()) == picture and took_s <= plain_s + BUDGET_S
        one = numbers(server)
        assert (one["stores"], one["errors"], one["not_stored"]) == (1, 1, 1) and "No space left" in server.log()
        assert not left_behind(folder)
        second = start_server("--cache-provider", f"file://{folder}", name="two")
        served = second.run(picture_of(64, 1))
        assert served.executed == ["save"] and pixels(served.file_bytes()) == pixels(small.file_bytes())
        assert second.run(picture_of(512, 2)).executed == ["image", "save"]
        grow()
        server.run(picture_of(512, 3))
        assert numbers(server)["stores"] == 2
        assert second.run(picture_of(512, 3)).executed == ["save"]
        server.stop()
        second.stop()


def test_where_files_may_not_grow_only_sharing_is_lost(start_server, tmp_path, plain):
    """As a quota does: writes of more than 2 MB end in the middle (EFBIG)."""
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -f 4096\nexec "{sys.executable}" "$@"\n')
    limited.chmod(0o755)
    server = start_server("--cache-provider", f"file://{tmp_path}/shared", name="one", python=str(limited))
    server.run(picture_of(64, 1))
    ((picture, plain_s),) = plain(picture_of(512, 2))
    run, took_s = timed_run(server, picture_of(512, 2))
    assert pixels(run.file_bytes()) == picture and took_s <= plain_s + BUDGET_S
    assert (numbers(server)["stores"], numbers(server)["errors"]) == (1, 1) and "File too large" in server.log()
    assert not left_behind(tmp_path / "shared")
    assert server.run(picture_of(64, 3)) and numbers(server)["stores"] == 2


def test_two_servers_write_one_folder_at_once(start_server, tmp_path, plain):
    url = f"file://{tmp_path}/shared"
    servers = [start_server("--cache-provider", url, name=name) for name in ("one", "two")]
    barrier = threading.Barrier(2)
    runs = {}

    def work(name, server):
        for color in range(20):
            barrier.wait(60)
            runs[name, color] = server.run(picture_of(256, color))

    threads = [threading.Thread(target=work, args=pair) for pair in zip("ab", servers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [picture for picture, _ in plain(*(picture_of(256, color) for color in range(20)))]
    assert len(runs) == 40
    assert all(pixels(run.file_bytes()) == expected[color] for (_, color), run in runs.items())
    assert all(numbers(server)["errors"] == 0 for server in servers)
    third = start_server("--cache-provider", url, name="three")
    for color in range(20):
        run = third.run(picture_of(256, color))
        assert run.executed == ["save"] and pixels(run.file_bytes()) == expected[color]
    assert not any("is not used" in server.log() for server in [*servers, third])


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_nothing_wrong_is_served_after_kills_during_stores(start_server, tmp_path, request, plain, kind):
    """Four servers die by SIGKILL at different moments of storing; what they said to be stored is served, and nothing else is wrong."""
    url = f"file://{tmp_path}/shared" if kind == "file" else f"redis://127.0.0.1:{request.getfixturevalue('redis').port}"
    finished = []
    for attempt in range(4):
        server = start_server("--cache-provider", url, name=f"killed{attempt}")
        first = attempt * 10
        for color in range(first, first + 3):
            assert server.run(picture_of(512, color)).of_type("execution_success")
        wait_for(lambda server=server: numbers(server)["stores"] == 3)
        finished += range(first, first + 3)
        client = Client(server)
        many = {
            f"{name}{color}": {
                **node,
                "inputs": {key: [f"image{color}", 0] if key == "images" else value for key, value in node["inputs"].items()},
            }
            for color in range(first + 3, first + 10)
            for name, node in picture_of(512, color).items()
        }
        server.post("/prompt", {"prompt": many, "client_id": client.client_id})
        began = numbers(server)["stores"]
        # Kill while results go out: at once, or after some have gone.
        wait_for(lambda server=server, began=began, attempt=attempt: numbers(server)["stores"] >= began + attempt, pause_s=0.001)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        client.close()
    after = start_server("--cache-provider", url, name="after")
    expected = [picture for picture, _ in plain(*(picture_of(512, color) for color in range(40)))]
    for color in range(40):
        run = after.run(picture_of(512, color))
        assert pixels(run.file_bytes()) == expected[color]
        assert color not in finished or run.executed == ["save"]
    assert "is not used" not in after.log()


def many_numbers():
    """200 nodes side by side that take no time, into one output."""
    numbered = {str(index): {"class_type": "OddNumber", "inputs": {"number": index}} for index in range(200)}
    return {**numbered, "end": {"class_type": "OddList", "inputs": {f"text{index}": [str(index), 0] for index in range(200)}}}


@pytest.mark.parametrize("ends", ["goes on", "is stopped at once"])
def test_no_store_is_lost_when_each_takes_50_ms_and_the_prompt_ends_at_once(start_odd, tmp_path, ends):
    server = start_odd("slow-store")
    server.run(light_workflow(0))
    (tmp_path / "notes").unlink()
    before = numbers(server)["stores"]
    run, took_s = timed_run(server, many_numbers())
    assert run.of_type("execution_success") and took_s <= BUDGET_S
    if ends == "goes on":
        wait_for(lambda: not numbers(server)["queued"])
        assert (numbers(server)["stores"] - before, numbers(server)["not_stored"]) == (200, 0)
    else:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    keys = (tmp_path / "notes").read_text().split()
    assert len(keys) == len(set(keys)) == 200
