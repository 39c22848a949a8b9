"""The series tool killed at every one of its steps, and at random moments together with whatever git does: whole or undone."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from attack_report import AreaResult
from described_comfyui import OLD, files
from small_checkouts import apply, git, make_checkout, revert, state
from test_journal import WAYS, kill_everywhere

from patchset import commands, journal
from patchset.checkout import open_checkout
from patchset.requests import REQUESTS

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed"), pytest.mark.timeout(580)]
PROGRAM = """
import sys
sys.path[:0] = sys.argv[1:3]
import small_checkouts
getattr(small_checkouts, sys.argv[3])(__import__("pathlib").Path(sys.argv[4]), **eval(sys.argv[5]))
"""
ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGEST_S, KILLS = 3.0, 17


@pytest.mark.attack
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", ["apply", "revert"])
def test_killed_at_many_steps(report, dice, seconds, tmp_path, command, way):
    result = AreaResult(f"patchset: {command}, {way}")
    report.results.append(result)
    result.tries = kill_everywhere(command, tmp_path, way, dice, min(1.0, seconds / 120))[1]


def killed_after(seconds, work):
    """Do *work* in a process that is killed after *seconds* (None: never); whether it was at work then."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def with_requests(root):
    """A checkout of what the requests need of ComfyUI, in git."""
    for path, source in files(OLD).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(source)
    email, start = "config user.email ada@example.org", "commit -qm start"
    for words in ("init -q -b master", "config user.name Ada", email, "config gc.auto 0", "add -A", start):
        git(root, *words.split())
    return root


@pytest.mark.attack
@pytest.mark.parametrize("way", WAYS)
def test_requests_killed_at_random_moments_are_repaired_by_the_next_call(report, dice, tmp_path, way):
    result = AreaResult(f"patchset: kill -9, requests, {way}")
    report.results.append(result)
    chosen = [
        request for request in REQUESTS.values() if request.name in ("provider-stores", "provider-demand", "ram-models", "parallel-read")
    ]

    def attempt(root, seconds):
        """Apply them in a process that is killed after *seconds*: whether it was, and how long it took."""
        began_s = time.monotonic()
        was_killed = killed_after(seconds, lambda: commands.apply(open_checkout(root), chosen, known=REQUESTS, **WAYS[way]))
        return was_killed, time.monotonic() - began_s

    commands.apply(open_checkout(with_requests(tmp_path / "first")), chosen, known=REQUESTS)  # so that each takes about as long
    longest_s, killed = attempt(with_requests(tmp_path / "whole"), None)[1], 0
    while killed < KILLS:
        root = with_requests(tmp_path / str(result.tries))
        before = state(root)
        killed += attempt(root, dice.random() * longest_s)[0]
        result.tries += 1
        if dice.random() < 0.5 and journal.is_open(open_checkout(root)):
            assert "interrupted" in commands.apply(open_checkout(root), chosen, known=REQUESTS, **WAYS[way])[0]
            assert commands.apply(open_checkout(root), chosen, known=REQUESTS)[-1] == "nothing to do"
        commands.revert(open_checkout(root), list(REQUESTS.values()), REQUESTS)
        assert state(root) == before, f"checkout {result.tries - 1}"
        shutil.rmtree(root)


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
