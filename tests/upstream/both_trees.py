"""Runs one script with this project and with a ComfyUI checkout, to compare what comes of it.

KEEPWARM_UPSTREAM_CHECKOUT names the checkout, KEEPWARM_UPSTREAM_PYTHON a Python that has what it needs (beside ``PYTHONPATH``).
"""

import os
import pathlib
import subprocess
import sys

import pytest
import torch

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
PROJECT = pathlib.Path(__file__).resolve().parents[2]


def against_upstream(timeout_s):
    """The marks of a test module."""
    is_missing = not (CHECKOUT and PYTHON)
    return [
        pytest.mark.slow,
        pytest.mark.timeout(timeout_s),
        pytest.mark.skipif(is_missing, reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
    ]


def results_of_both(script, folder, before=(), after=()):
    """(what *script*, a path below this folder, saved here, the same in the checkout): it is given *before*, the file to save to, *after*.

    Raises ``CalledProcessError``.
    """
    run_here(script, *before, folder / "ours.pt", *after)
    run_there(script, *before, folder / "theirs.pt", *after)
    return torch.load(folder / "ours.pt"), torch.load(folder / "theirs.pt")


def run_here(script, *arguments):
    """Run *script* with this project."""
    _run(sys.executable, PROJECT, script, arguments)


def run_there(script, *arguments):
    """Run *script* with the checkout."""
    _run(PYTHON, CHECKOUT, script, arguments)


def _run(python, tree, script, arguments):
    path = os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([python, pathlib.Path(__file__).parent / script, *arguments], cwd=tree, env=environment, check=True)
