"""Every series on what is known of ComfyUI before and after 0.36: each fits, alone and with the others, once, and goes without a trace."""

import ast
import re

import pytest
from described_comfyui import NEW, OLD, files

from patchset import commands, compatibility
from patchset.checkout import NEWEST_TESTED, OLDEST, open_checkout
from patchset.intent import intend
from patchset.outcomes import AnchorError, Verdict
from patchset.plan import make_plan
from patchset.series import SERIES
from patchset.series.definition import PROJECT
from patchset.trees import Overlay


@pytest.fixture(params=[OLD, NEW])
def checkout(tmp_path, request):
    for path, source in files(request.param).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source)
    return open_checkout(tmp_path)


@pytest.mark.parametrize("name", SERIES)
def test_each_series_fits_alone_and_knows_its_own_result(checkout, name):
    plan = make_plan(SERIES[name], checkout)
    assert not plan.failures and not plan.is_noop
    assert {outcome.verdict for outcome in plan.outcomes} == {Verdict.APPLIED}
    overlay = Overlay(checkout)
    for change in plan.changes:
        ast.parse(change.after)
        overlay.put(change.path, change.after)
    again = make_plan(SERIES[name], overlay)
    assert again.is_noop and {outcome.verdict for outcome in again.outcomes} == {Verdict.ALREADY_THERE}


def test_all_fit_together_and_are_undone(checkout):
    before = {path: (checkout.root / path).read_bytes() for path in files(OLD)}
    assert {standing.summary for standing in intend(checkout, list(SERIES.values()), SERIES).standings} == {"can be applied"}
    commands.apply(checkout, list(SERIES.values()))
    commands.revert(checkout, list(SERIES.values()))
    assert {path: (checkout.root / path).read_bytes() for path in files(OLD)} == before
    assert {str(path.relative_to(checkout.root)) for path in checkout.root.rglob("*.py")} == before.keys()


def test_apply_takes_what_fits_and_says_what_does_not_and_why(checkout):
    manager = checkout.root / "comfy/model_management.py"
    manager.write_text(manager.read_text().replace("cleanup_models_gc", "cleanup_models_now"))
    with pytest.raises(AnchorError, match="leave out --strict, or leave out ram-model-cache"):
        commands.apply(checkout, list(SERIES.values()), strict=True)
    told = commands.apply(checkout, list(SERIES.values()))
    assert told[0].startswith("ram-model-cache: left out") and "cleanup_models_gc" in told[1]
    assert [line.split(":")[0] for line in told[2:]] == [name for name in SERIES if name != "ram-model-cache"]
    with pytest.raises(AnchorError, match="does not fit this checkout: ram-model-cache"):
        commands.apply(checkout, [SERIES["ram-model-cache"]])


def test_what_is_done_at_the_end_comes_first_whatever_else_is_done_there(checkout):
    change = next(change for change in make_plan(SERIES["provider-fixes"], checkout).changes if change.path == "main.py")
    assert b"finally:\n        close_providers()\n        " in change.after


def test_the_howto_s_table_is_that_of_the_series_and_edits_as_they_are():
    """Else: make it anew with python -m patchset.compatibility on a checkout of every release."""
    text = (PROJECT / "docs/howto/patch-your-comfyui.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| (ComfyUI|0\.\d)", line)]
    versions = [tuple(map(int, row[0].split("."))) for row in rows[1:]]
    assert rows[0][1:] == list(SERIES)
    assert f"Edits: {compatibility.digest()}\n" in text
    assert versions == sorted(versions, reverse=True)
    assert (versions[-1][:2], versions[0][:2]) == (OLDEST, NEWEST_TESTED)
    assert {cell for row in rows[1:] for cell in row[1:]} == {"can be applied"}
