"""Nodes and packs that raise whatever can be raised, wherever their code is called: every prompt ends, and the queue goes on."""

import json
import pathlib
import shutil
import time

import pytest
from hostile_packs.behaviours import ERRORS, FAILING, PASSING, REFUSED
from live_server import Client

PACKS = pathlib.Path(__file__).parent / "hostile_packs"
RSS_GROWTH_BYTES = 300 << 20
PROMPT_TIMEOUT_S = 30


def install(base, *names):
    """Put the hostile packs of those names where the server that will start in *base* looks for packs."""
    for name in names:
        shutil.copytree(PACKS / name, base / "custom_nodes" / name, ignore=shutil.ignore_patterns("__pycache__"))


def prompt(kind, what, salt):
    """A prompt of one hostile node and one that shows its result."""
    return {
        "1": {"class_type": f"Hostile{kind}", "inputs": {"what": what, "salt": salt}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


def try_one(client, result, kind, what, salt):
    """Run one hostile prompt and note what is wrong with its end."""
    if kind in {one.__name__ for one in REFUSED}:
        status, answer = client.server.post("/prompt", {"prompt": prompt(kind, what, salt)})
        if status != 400 or "1" not in answer["node_errors"]:
            result.wrong_results.append(f"{kind} with {what} was answered {status} {str(answer)[:200]}")
        return
    run = client.run(prompt(kind, what, salt), PROMPT_TIMEOUT_S)
    result.tries += 1
    told, status = run.of_type("execution_error"), run.history["status"]["status_str"]
    fails = kind in {one.__name__ for one in FAILING}
    named = [data["node_id"] for data in told]
    if (status, named) != (("error", ["1"]) if fails else ("success", [])):
        result.wrong_results.append(f"{kind} with {what} ended as {status}, errors at {named}")
    json.dumps(run.history, allow_nan=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("area, share", [("hostile nodes sample", 0.4), pytest.param("hostile nodes", 1.0, marks=pytest.mark.attack)])
def test_nodes_may_raise_anything_anywhere(attacked, dice, seconds, tmp_path, area, share):
    install(tmp_path / area, "behaviours", "fails_half_way", "replaces")
    server = attacked(area)
    kinds = [(kind.__name__, what) for kind in (*FAILING, *PASSING, *REFUSED) for what in ERRORS]
    with server.watch() as result:
        client = Client(server.server)
        ends_s, salt = time.monotonic() + seconds * share, 0
        while time.monotonic() < ends_s:
            dice.shuffle(kinds)
            for kind, what in kinds:
                try_one(client, result, kind, what, salt := salt + 1)
                if salt % 50 == 0:
                    server.server.post("/free", {"unload_models": True, "free_memory": True})
                if time.monotonic() > ends_s:
                    break
        client.close()
        assert len(server.server.get("/history")) == result.tries
    assert "fails_half_way" in server.server.log() and "a library that is not there" in server.server.log()
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_the_server_survives_nodes_that_end_its_threads(attacked, seconds, tmp_path):
    """A prompt whose node ends the server's threads may fail, but it ends, and the next one runs."""
    install(tmp_path / "ended threads", "behaviours")
    server = attacked("ended threads")
    with server.watch() as result:
        client, ends_s = Client(server.server), time.monotonic() + min(seconds, 20)
        while time.monotonic() < ends_s:
            client.run(prompt("Threads", "", result.tries), PROMPT_TIMEOUT_S)
            good = client.run(prompt("Reset", "SystemExit", result.tries), PROMPT_TIMEOUT_S)
            if good.history["status"]["status_str"] != "success":
                result.wrong_results.append("the prompt after that failed")
            result.tries += 1
        client.close()
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)
