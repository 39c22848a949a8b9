"""Every request on what is known of ComfyUI before and after 0.36: alone, with the others in any order, and gone without a trace."""

import ast
import itertools
import subprocess

import pytest
from described_comfyui import NEW, OLD, files

from patchset import commands, reverting
from patchset.checkout import open_checkout
from patchset.command_line import main
from patchset.outcomes import AnchorError, PatchsetError, Verdict
from patchset.plan import make_plan
from patchset.requests import REQUESTS
from patchset.series import SERIES
from patchset.series.definition import PROJECT
from patchset.trees import Overlay

KNOWN = {**SERIES, **REQUESTS}
ON_THE_CORE = [name for name, request in REQUESTS.items() if request.builds_on == ("ram-models",)]
ALONE = [name for name in REQUESTS if name not in ON_THE_CORE]
PROVIDERS = [name for name in REQUESTS if name.startswith("provider-")]


@pytest.fixture(params=[OLD, NEW])
def checkout(tmp_path, request):
    for path, source in files(request.param).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source)
    return open_checkout(tmp_path)


def contents(checkout):
    return {str(path.relative_to(checkout.root)): path.read_bytes() for path in checkout.root.rglob("*") if path.is_file()}


def put(overlay, name):
    plan = make_plan(REQUESTS[name], overlay)
    assert not plan.failures and not plan.is_noop, plan.failures
    for change in plan.changes:
        ast.parse(change.after)
        overlay.put(change.path, change.after)
    return plan


@pytest.mark.parametrize("name", ALONE)
def test_each_stands_alone_and_knows_its_own_result(checkout, name):
    overlay = Overlay(checkout)
    assert {outcome.verdict for outcome in put(overlay, name).outcomes} == {Verdict.APPLIED}
    again = make_plan(REQUESTS[name], overlay)
    assert again.is_noop and {outcome.verdict for outcome in again.outcomes} == {Verdict.ALREADY_THERE}
    before = contents(checkout)
    commands.apply(checkout, [REQUESTS[name]], known=KNOWN)
    commands.revert(checkout, list(KNOWN.values()), KNOWN)
    assert contents(checkout) == before


@pytest.mark.parametrize("name", ON_THE_CORE)
def test_what_builds_on_the_core_says_so(checkout, name):
    with pytest.raises(AnchorError, match="from comfy.ram_models import ram_models"):
        commands.apply(checkout, [REQUESTS[name]], known=KNOWN)


def test_the_provider_requests_give_the_same_in_every_order(checkout):
    results = []
    for order in itertools.permutations(PROVIDERS):
        overlay = Overlay(checkout)
        for name in order:
            put(overlay, name)
        results.append({change.path: sorted(change.after.splitlines()) for change in overlay.changes()})
    assert all(result == results[0] for result in results[1:])


def test_all_fit_together_and_are_undone(checkout):
    before = contents(checkout)
    commands.apply(checkout, list(REQUESTS.values()), strict=True, known=KNOWN)
    told = commands.apply(checkout, list(REQUESTS.values()), strict=True, known=KNOWN)
    assert told[-1] == "nothing to do"
    commands.revert(checkout, [REQUESTS["provider-demand"]], KNOWN)
    commands.revert(checkout, list(KNOWN.values()), KNOWN)
    assert contents(checkout) == before


@pytest.mark.parametrize("name", ALONE)
def test_each_fits_beside_the_series_about_other_things(checkout, name):
    others = [one for one in SERIES.values() if one.name != "provider-fixes" and not one.is_rival_of(REQUESTS[name])]
    before = contents(checkout)
    commands.apply(checkout, others, strict=True, known=KNOWN)
    if name not in PROVIDERS:
        commands.apply(checkout, [REQUESTS[name]], strict=True, known=KNOWN)
    commands.revert(checkout, list(KNOWN.values()), KNOWN)
    assert contents(checkout) == before


RIVALS = [
    ("ram-model-cache", "ram-models", True),
    ("ram-models", "ram-model-cache", False),
    ("provider-fixes", "provider-stores", False),
    ("provider-deadline", "provider-fixes", True),
    ("provider-fixes", "provider-demand", False),
]


@pytest.mark.parametrize(("first", "second", "commit"), RIVALS)
def test_what_does_the_same_is_refused_in_one_line_in_either_order(checkout, first, second, commit):
    if commit:
        into_git(checkout)
        checkout = open_checkout(checkout.root)
    first, second = KNOWN[first], KNOWN[second]
    assert first.is_rival_of(second) and second.is_rival_of(first)
    with pytest.raises(PatchsetError, match="name one of them, not both") as both:
        commands.apply(checkout, [first, second], known=KNOWN)
    commands.apply(checkout, [first], known=KNOWN, commit=commit)
    before = contents(checkout)
    for attempt in (commands.apply, commands.in_memory):
        with pytest.raises(PatchsetError, match=f"^{second.name} and {first.name} do the same .*revert that first$") as after:
            attempt(checkout, [second], known=KNOWN)
        assert "\n" not in str(both.value) + str(after.value)
    lines, sound = commands.check(checkout, [second], KNOWN)
    assert not sound and lines[-1] == f"{second.name}: not together with {first.name}, which is applied"
    assert contents(checkout) == before


def test_a_plain_apply_beside_a_request_says_in_one_line_what_it_leaves_out(checkout):
    commands.apply(checkout, [REQUESTS["ram-models"]], known=KNOWN)
    told = commands.apply(checkout, list(SERIES.values()), known=KNOWN)
    assert told[0].startswith("ram-model-cache: left out; ") and "ram-models is applied" in told[0]
    assert [line.split(":")[0] for line in told[1:]] == [name for name in SERIES if name != "ram-model-cache"]
    with pytest.raises(PatchsetError, match="ram-models is applied"):
        commands.apply(checkout, list(SERIES.values()), strict=True, known=KNOWN)


def into_git(checkout):
    """A repository of the files with one commit."""
    for command in (
        ["init", "-q"],
        ["config", "user.name", "A"],
        ["config", "user.email", "a@b"],
        ["add", "-A"],
        ["commit", "-qm", "start"],
    ):
        subprocess.run(["git", "-C", str(checkout.root), *command], check=True)


def test_fakes_that_several_bring_are_a_sign_of_none(checkout):
    into_git(checkout)
    checkout = open_checkout(checkout.root)
    commands.apply(checkout, [REQUESTS["provider-stores"]], known=KNOWN)
    subprocess.run(["git", "-C", str(checkout.root), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(checkout.root), "commit", "-qm", "mine"], check=True)
    (checkout.state_folder / "applied.json").unlink()
    assert reverting.applied(checkout, KNOWN) == ([], ["provider-stores"])


def test_from_the_command_line_they_come_only_when_named(checkout, capsys):
    root = str(checkout.root)
    for command in (["init", "-q"], ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "start"]):
        subprocess.run(["git", "-C", root, *command], check=True)
    assert main(["check", root]) == 0
    assert "ram-models:" not in capsys.readouterr().out
    before = contents(checkout)
    assert main(["apply", root, "--request", "ram-models", "--request", "ram-models-receipts"]) == 0
    assert main(["revert", root]) == 0
    told = capsys.readouterr().out
    assert "provider-stores" not in told and "ram-models, ram-models-receipts: undone" in told
    assert contents(checkout) == before


def lines_of(paths):
    return sum(len((PROJECT / path).read_text(encoding="utf-8").splitlines()) for path in paths)


def test_the_core_of_the_cache_is_small_enough_to_be_read():
    core = REQUESTS["ram-models"]
    edits = sum(1 for _ in core.edits((0, 33, 0)))
    assert lines_of(here for here, _ in core.copied(with_tests=False)) + edits <= 700
    assert lines_of(here for here, _ in core.tests) <= 400


def test_no_request_brings_a_name_that_nothing_uses():
    for request in REQUESTS.values():
        texts = {here: (PROJECT / here).read_text(encoding="utf-8") for here, _ in request.copied(with_tests=False)}
        edits = " ".join(str(vars(edit)) for edit in request.edits((0, 33, 0)))
        whole = edits + " ".join(texts.values())
        for here, text in texts.items():
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("__"):
                    assert whole.count(node.name) > 1, f"{request.name}: {here}: {node.name}"
