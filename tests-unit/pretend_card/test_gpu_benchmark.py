"""The script that measures everything on a card: its bounds, that it goes on where it stopped, and that it runs on a pretend card."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks.gpu.bench import CHOICES, suitable
from benchmarks.gpu.marked_tests import files_with_marked_tests
from benchmarks.gpu.results import Figure, Results
from benchmarks.gpu.run_all import PARTS, TIME_S

ROOT = pathlib.Path(__file__).resolve().parents[2]
GIB = 1 << 30


def test_bounds_are_judged_on_a_real_card_and_exact_ones_on_a_pretend_one(tmp_path: pathlib.Path) -> None:
    figures = {"slow": Figure(0.5, at_least=0.85, goal=0.95), "wrong": Figure(3, "B", at_most=0, is_exact=True), "plain": Figure(1.0)}
    for pretends, broken in ((False, ["slow", "wrong"]), (True, ["wrong"])):
        results = Results(tmp_path / f"{pretends}.json", {"pretends": pretends})
        results.keep("copies", figures, 1.0)
        assert [words.split(":")[0] for words in results.broken()] == [f"copies, {name}" for name in broken]
        assert results.table().count("**no**") == len(broken)


def test_results_of_this_card_and_tree_are_kept_and_others_begun_anew(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "results.json"
    Results(path, {"commit": "a"}).keep("rates", {"rate": Figure(2.0, "GB/s")}, 1.0)
    again = Results(path, {"commit": "a"})
    again.fail("steps", "too long")
    assert again.done() == ["rates"] and again.figures("rates")["rate"].value == 2.0 and again.broken() == ["steps: too long"]
    assert Results(path, {"commit": "b"}).done() == []
    path.write_text("damaged", encoding="utf-8")
    assert Results(path, {"commit": "b"}).done() == []


def test_files_fit_into_half_of_what_is_free() -> None:
    large, small = CHOICES[0], CHOICES[-1]
    assert suitable(139 * GIB, 128 * GIB, 64 * GIB) is large
    assert suitable(6 * GIB, 128 * GIB, 64 * GIB) is CHOICES[2] and suitable(16 * GIB, 16 * GIB, 64 * GIB) is CHOICES[1]
    assert suitable(139 * GIB, GIB, 64 * GIB) is not large and suitable(GIB, GIB, GIB // 8) is small


def test_the_parts_that_matter_fit_into_the_time() -> None:
    assert [part.name for part in PARTS] == list(dict.fromkeys(part.name for part in PARTS))
    assert all(part.limit_s < TIME_S / 3 for part in PARTS) and TIME_S <= 540


def test_the_files_with_tests_for_cards_are_found() -> None:
    assert "tests-unit/comfy_test/residency/test_arena_pinner.py" in files_with_marked_tests()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_it_runs_through_on_a_pretend_card(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "run_all.py"), "--pretend", "--check", "--out", str(out)]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(out.read_text(encoding="utf-8"))["parts"].keys() == {part.name for part in PARTS}
