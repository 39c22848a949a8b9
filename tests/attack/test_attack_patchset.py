"""The series tool killed at every one of its steps, and at random moments together with whatever git does: whole or undone."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from attack_report import AreaResult
from small_checkouts import apply, git, make_checkout, revert, state
from test_journal import WAYS, kill_everywhere

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed"), pytest.mark.timeout(580)]
PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:3]
import small_checkouts
getattr(small_checkouts, sys.argv[3])(__import__("pathlib").Path(sys.argv[4]), **eval(sys.argv[5]))
"""
ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGEST_S = 3.0


@pytest.mark.attack
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", ["apply", "revert"])
def test_killed_at_many_steps(report, dice, seconds, tmp_path, command, way):
    result = AreaResult(f"patchset: {command}, {way}")
    report.results.append(result)
    result.tries = kill_everywhere(command, tmp_path, way, dice, min(1.0, seconds / 120))[1]


@pytest.mark.attack
def test_processes_killed_at_random_moments(report, dice, seconds, tmp_path):
    result = AreaResult("patchset: kill -9")
    report.results.append(result)
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        root = make_checkout(tmp_path / str(result.tries))
        before = state(root)
        for command in dice.choices(["apply", "revert"], k=3):
            how = WAYS[dice.choice(list(WAYS))] if command == "apply" else {}
            if git(root, "branch", "--list", "made"):
                how = {}
            arguments = [str(ROOT), str(ROOT / "tests-unit/patchset_test"), command, str(root), repr(how)]
            process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stderr=subprocess.DEVNULL)
            time.sleep(dice.random() * LONGEST_S)
            process.send_signal(signal.SIGKILL)
            process.wait()
        revert(root)
        after = state(root)
        result.tries += 1
        # A branch that was finished is kept, checked out or not.
        assert {**after, "branch": ""} == {**before, "branch": ""}, f"checkout {result.tries - 1}"
    apply(make_checkout(tmp_path / "last"))
