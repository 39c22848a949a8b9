"""A running server with the RAM model cache: models are read once however often prompts switch, and what the cache says is true."""

import os
import shutil

import pytest
from model_workflows import STARTERS, run, with_starters, workflow
from result_places import change_one_tensor


@pytest.mark.parametrize("mode", [(), ("--cache-none",), ("--cache-lru", "5"), ("--cache-ram",)], ids=["classic", "none", "lru", "ram"])
def test_each_checkpoint_is_read_once_when_prompts_alternate(start_server, mode):
    server = with_starters(start_server("--cpu", "--ram-model-cache-mb", "1000", *mode))
    tiers = []
    for seed, name in enumerate(STARTERS * 2):
        tiers.append({receipt["tier"] for receipt in run(server, name, seed)[1]})
    assert tiers[:2] == [{"disk"}, {"disk"}]
    assert all("disk" not in later for later in tiers[2:])
    section = server.get("/caches")["models"]
    counters = section["stats"]["counters"]
    assert section["enabled"] and counters["misses"] == 6 and len(section["entries"]) == 6 and not counters["evictions"]
    files = sum((server.base / "models" / "checkpoints" / name).stat().st_size for name in STARTERS)
    assert 0.9 * files < counters["read_bytes"] <= files
    assert server.get("/system_stats")["system"]["ram_model_cache"]["models"] == 6
    if not mode or mode == ("--cache-none",):
        assert counters["hits"] == 6


def test_on_an_accelerator_that_fits_one_model_pictures_are_the_same_and_no_file_is_read_twice(start_server):
    plain = with_starters(start_server("--cpu", "--no-ram-model-cache"))
    small = with_starters(start_server("--cpu", "--simulated-vram-mb", "24", "--ram-model-cache-mb", "1000", "--cache-none"))
    for seed, name in enumerate(STARTERS * 2):
        picture, receipts = run(plain, name, seed)
        assert receipts == [] and run(small, name, seed)[0] == picture
    counters = small.get("/caches")["models"]["stats"]["counters"]
    assert counters["misses"] == 6 and counters["hits"] == 6 and counters["vram_evictions"] > 0
    assert plain.get("/caches")["models"] == {"enabled": False, "stats": None, "entries": []}


def test_free_empties_the_cache_and_the_next_prompt_reads_again(start_server):
    server = with_starters(start_server("--cpu", "--ram-model-cache-mb", "1000"))
    first = run(server, STARTERS[0], 1)[0]
    server.post("/free", {"unload_models": True, "free_memory": True})
    picture, receipts = run(server, STARTERS[0], 1)
    assert picture == first and {receipt["tier"] for receipt in receipts} == {"disk"}
    assert all("POST /free" in receipt["reason"] for receipt in receipts)


def test_a_replaced_file_gives_its_own_picture_and_a_truncated_one_an_error_that_names_it(start_server):
    server = with_starters(start_server("--cpu", "--ram-model-cache-mb", "1000", "--cache-none"))
    digits, outlines = (server.base / "models" / "checkpoints" / name for name in STARTERS)
    original = run(server, digits.name, 3)[0]
    expected = run(server, outlines.name, 3)[0]
    assert original != expected
    shutil.copy(outlines, digits)
    picture, receipts = run(server, digits.name, 3)
    assert picture == expected and all("file changed" in receipt["reason"] for receipt in receipts) and receipts
    with open(digits, "r+b") as file:
        file.truncate(digits.stat().st_size // 2)
    broken = server.run(workflow(digits.name, 3))
    assert broken.history["status"]["status_str"] == "error" and digits.name in str(broken.history["status"]["messages"])
    shutil.copy(outlines, digits)
    assert run(server, digits.name, 3)[0] == expected


@pytest.mark.parametrize("mode", [(), ("--cache-lru", "50"), ("--cache-ram", "1")], ids=["classic", "lru", "ram"])
def test_a_replaced_checkpoint_never_gives_the_old_picture_though_results_are_kept(start_server, mode):
    server = with_starters(start_server("--cpu", "--ram-model-cache-mb", "1000", *mode))
    digits, outlines = (server.base / "models" / "checkpoints" / name for name in STARTERS)
    pictures = {name: run(server, name, 3)[0] for name in STARTERS}
    assert "sample" not in server.run(workflow(outlines.name, 3)).executed
    change_one_tensor(digits)
    changed, receipts = run(server, digits.name, 3)
    assert changed != pictures[digits.name] and receipts
    assert all("file changed" in receipt["reason"] and "time of change" in receipt["reason"] for receipt in receipts)
    shutil.copy(outlines, server.base / "new")
    os.replace(server.base / "new", digits)
    assert run(server, digits.name, 3)[0] == pictures[outlines.name]
    assert "sample" not in server.run(workflow(digits.name, 3)).executed
