"""What the tables of docs are made by: series applied to copies, repeated and undone, and what goes wrong is said."""

import dataclasses
import re

import libcst as cst
import pytest
from described_comfyui import OLD, files

from patchset import compatibility
from patchset.checkout import NEWEST_TESTED, OLDEST, open_checkout
from patchset.outcomes import Outcome, Verdict
from patchset.requests import REQUESTS
from patchset.series import SERIES
from patchset.series.definition import PROJECT, Series


def make(root, version):
    for path, source in files(OLD).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(source)
    (root / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return open_checkout(root)


@dataclasses.dataclass(frozen=True)
class Grows:
    """An edit that does not know its own result."""

    path: str = "nodes.py"
    anchor: str = "the end"

    def apply(self, module):
        return module.with_changes(body=[*module.body, cst.parse_statement("more = 1")]), Outcome(
            Verdict.APPLIED, self.path, self.anchor, ""
        )


def test_a_request_is_tried_on_a_copy_with_what_it_builds_on(tmp_path):
    checkout = make(tmp_path / "a", "0.30.0")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    chosen = compatibility.cases()["ram-models-receipts"]
    assert [series.name for series in chosen] == ["ram-models", "ram-models-receipts"]
    assert compatibility.try_out(checkout, chosen) == "yes"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_goes_wrong_is_said(tmp_path):
    checkout = make(tmp_path / "a", "0.30.0")
    grows = Series("grows", "Grow", "", lambda version: [Grows()])
    assert compatibility.try_out(checkout, [grows]) == "not known by what it made: grows"
    (checkout.root / "comfy/utils.py").write_text("")
    assert "load_torch_file" in compatibility.try_out(checkout, [REQUESTS["parallel-read"]])


def test_checkouts_that_do_not_differ_where_it_matters_are_tried_once(tmp_path, monkeypatch, capsys):
    made = [make(tmp_path / version, version) for version in ("0.30.0", "0.30.1", "0.22.0", "0.29.0")]
    (made[3].root / "comfy_execution/provider_stores.py").write_text("")
    tried = []

    def note(checkout, chosen):
        tried.append(checkout.version_text)
        return "no" if checkout.version_text == "0.22.0" and chosen[0].name == "patch-reuse" else "yes"

    monkeypatch.setattr(compatibility, "try_out", note)
    assert compatibility.main(["--try", *(str(checkout.root) for checkout in made)]) == 0
    printed = capsys.readouterr().out
    assert list(dict.fromkeys(tried)) == ["0.30.1", "0.29.0", "0.22.0"]
    assert "| 0.30.0 | 5 of 5 | yes | 8 of 8 | yes |" in printed and "| 0.22.0 | 4 of 5 | yes | 8 of 8 | yes |" in printed
    assert "\n0.22.0, patch-reuse: no\n" in printed


def test_the_reference_s_table_is_that_of_the_edits_as_they_are():
    """Else: make it anew with python -m patchset.compatibility --try on a checkout of every release."""
    text = (PROJECT / "docs/reference/compatibility.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.partition(" | ".join(compatibility.TRIED))[2].splitlines()]
    rows = [row for row in rows if re.match(r"0\.\d+\.\d+$", row[0]) and len(row) == len(compatibility.TRIED)]
    versions = [tuple(map(int, row[0].split("."))) for row in rows]
    assert f"Edits: {compatibility.digest(compatibility.KNOWN)}\n" in text
    assert versions == sorted(versions, reverse=True) and (versions[-1][:2], versions[0][:2]) == (OLDEST, NEWEST_TESTED)
    counts = [f"{len(known)} of {len(known)}" for known in (SERIES, REQUESTS)]
    assert {tuple(row[1:]) for row in rows} == {(counts[0], "yes", counts[1], "yes")}
    howto = (PROJECT / "docs/howto/patch-your-comfyui.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| (0\.\d+\.\d+) \|", howto) == [row[0] for row in rows], "both tables name the same releases"


def test_a_folder_without_comfyui_is_refused(tmp_path, capsys):
    assert compatibility.main(["--try", str(tmp_path)]) == 1
    assert "holds no ComfyUI" in capsys.readouterr().err


@pytest.mark.parametrize("name", REQUESTS)
def test_what_a_request_builds_on_is_there(name):
    assert set(REQUESTS[name].builds_on) <= REQUESTS.keys()
