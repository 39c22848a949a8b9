"""``run`` and ``update``, and the command line where LibCST is missing."""

import pathlib
import subprocess
import sys

import pytest
from linear_checkout import BOTH, edit, git, make, state

from patchset.command_line import main
from patchset.series import SERIES


@pytest.fixture(autouse=True)
def one_series():
    """The only one meanwhile; afterwards all, in their order."""
    every = dict(SERIES)
    SERIES.clear()
    SERIES[BOTH.name] = BOTH
    yield
    SERIES.clear()
    SERIES.update(every)


@pytest.fixture
def checkout(tmp_path):
    return make(tmp_path / "ComfyUI")


def test_run_starts_the_untouched_checkout_with_the_changes_in_memory(checkout):
    before = state(checkout)
    command = [sys.executable, "-m", "patchset", "run", str(checkout), "--series", "linear-signatures", "--python", sys.executable]
    project = pathlib.Path(__file__).parents[2]
    done = subprocess.run([*command, "--", "--port", "1"], capture_output=True, text=True, cwd=project, check=False)
    assert done.stdout.strip() == "argv ['--port', '1'] True", done.stderr
    assert state(checkout) == before


def test_run_shows_the_lines_that_ran_in_tracebacks(checkout):
    """The trampoline's frames, and the line of the changed file: the file on disk has another there."""
    (checkout / "main.py").write_text(
        "import asyncio, traceback, types, sys\nsys.modules['nodes'] = types.ModuleType('nodes')\nimport execution\n"
        "try:\n    asyncio.run(execution.validate_inputs(1))\nexcept TypeError:\n    traceback.print_exc()\n"
        "asyncio.run(execution.validate_inputs(1))\n"
    )
    git(checkout, "commit", "-q", "-am", "fails")
    project = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-m", "patchset", "run", str(checkout), "--series", "flat-validation"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project, check=False)
    assert done.returncode == 1
    assert done.stderr.count("coroutine: Any = function(*args, **kwargs)") == 2, done.stderr


@pytest.mark.parametrize("flags", [[], ["--commit"]], ids=["plain", "commit"])
def test_update_pulls_and_applies_again(checkout, tmp_path, flags, capsys):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(checkout), str(clone))
    git(clone, "config", "user.name", "Ada")
    git(clone, "config", "user.email", "ada@example.org")
    main(["apply", str(clone), *flags])
    edit(checkout, "execution.py", "return await validate", "# newer\n    return await validate")
    edit(checkout, "comfyui_version.py", "0.30.0", "0.31.0")
    assert main(["update", str(clone)]) == 0
    assert "ComfyUI 0.30.0 became 0.31.0" in capsys.readouterr().out
    text = (clone / "execution.py").read_text()
    assert "# newer" in text and "@without_recursion" in text
    assert (git(clone, "status", "--porcelain") == "") == bool(flags)
    assert main(["revert", str(clone)]) == 0
    assert state(clone) == state(checkout)


def test_an_update_that_fails_leaves_all_as_it_was(checkout, tmp_path, capsys):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(checkout), str(clone))
    main(["apply", str(clone)])
    applied = state(clone)
    checkout.rename(tmp_path / "moved")
    assert main(["update", str(clone)]) == 1
    told = capsys.readouterr().err
    assert "git pull failed" in told and "applied again" in told
    assert state(clone) == applied
    git(clone, "switch", "-q", "-c", "alone")
    assert main(["update", str(clone)]) == 1
    assert "follows" in capsys.readouterr().err and state(clone) == applied


def test_run_hands_a_request_to_end_on_to_the_server(checkout):
    (checkout / "main.py").write_text(
        "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(7))\nprint('ready', flush=True)\nsignal.pause()\n"
    )
    git(checkout, "commit", "-q", "-am", "a server that waits")
    process = subprocess.Popen(
        [sys.executable, "-m", "patchset", "run", str(checkout), "--series", "linear-signatures"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(30) == 7
    process.stdout.close()


def test_without_libcst_it_says_what_to_install(checkout):
    program = (
        "import sys, runpy\nsys.modules['libcst'] = None\nsys.argv[1:] = ['check', '.']\nrunpy.run_module('patchset', None, '__main__')"
    )
    project = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=project, check=False)
    assert done.returncode == 1 and "pip install libcst" in done.stderr and "Traceback" not in done.stderr, done.stderr
