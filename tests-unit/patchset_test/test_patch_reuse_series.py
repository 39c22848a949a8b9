"""The series patch-reuse: its edits on small files that only have the places it needs."""

import pathlib

import libcst as cst
import pytest

from patchset.outcomes import Verdict
from patchset.series.patch_reuse import NEXT_FLAG, SERIES

PROJECT = pathlib.Path(__file__).resolve().parents[2]
VERSIONS = [(0, 21, 0), (0, 24, 0), (0, 30, 0), (0, 33, 0)]
FILES = {
    "comfy/cli_args.py": f"import argparse\n\n{NEXT_FLAG}\nx = 1\n",
    "comfy/model_patcher.py": "import uuid\n\nfrom comfy.patcher_extension import CallbacksMP, WrappersMP\n\n\nclass ModelPatcher:\n"
    "    def add_weight_wrapper(self, name):\n        self.patches_uuid = uuid.uuid4()\n\n"
    "    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):\n        with self.use_ejected():\n"
    "            p = set()\n            self.patches_uuid = uuid.uuid4()\n            return list(p)\n",
}


def applied(files, version):
    """(files after, verdicts)"""
    modules = {path: cst.parse_module(text) for path, text in files.items()}
    verdicts = []
    for edit in SERIES.edits(version):
        modules[edit.path], outcome = edit.apply(modules[edit.path])
        verdicts.append(outcome.verdict)
    return {path: module.code for path, module in modules.items()}, verdicts


@pytest.mark.parametrize("version", VERSIONS)
def test_two_lines_are_added_and_one_is_replaced(version):
    after, verdicts = applied(FILES, version)
    assert set(verdicts) == {Verdict.APPLIED}
    added = [line for path in FILES for line in after[path].splitlines() if line not in FILES[path].splitlines()]
    assert len(added) == 3
    assert after["comfy/model_patcher.py"].count("uuid.uuid4()") == 1
    again, verdicts = applied(after, version)
    assert set(verdicts) == {Verdict.ALREADY_THERE}
    assert again == after


def test_it_stays_within_five_files_and_sixty_lines():
    """Its module and its edits together; the tests come on top."""
    copied = SERIES.copied(with_tests=False)
    lines = sum(len((PROJECT / here).read_text(encoding="utf-8").splitlines()) for here, _ in copied)
    assert len(copied) + len(FILES) <= 5
    assert lines + 4 <= 60


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("comfy/cli_args.py", "--force-channels-last", "--channels-last"),
        ("comfy/model_patcher.py", "def add_patches", "def add_all_patches"),
        ("comfy/model_patcher.py", "            self.patches_uuid = uuid.uuid4()\n            return", "            return"),
    ],
)
def test_a_place_that_changed_is_reported(path, old, new):
    assert old in FILES[path]
    _, verdicts = applied({**FILES, path: FILES[path].replace(old, new)}, (0, 30, 0))
    assert Verdict.MISSING in verdicts
