"""What is said of failing nodes: the outputs that depend on them are exact, the answer is bounded."""

import random

import pytest
from checked_prompts import CLASSES, check, declare, node

from comfy_execution.prompt_checks import failures
from comfy_execution.prompt_checks.failures import MAX_ANSWER, bounded, details_of, failing_outputs
from comfy_execution.prompt_checks.shown_values import weight


def outputs_by_force(outputs, above, node_id):
    def depends(output):
        waiting, seen = [output], set()
        while waiting:
            one = waiting.pop()
            if one == node_id:
                return True
            if one not in seen:
                seen.add(one)
                waiting += above[one]
        return False

    return [output for output in outputs if depends(output)]


@pytest.mark.parametrize("at_once", [1, 3, 4096])
def test_outputs_are_those_that_depend_on_the_node_in_order(at_once, monkeypatch):
    monkeypatch.setattr(failures, "OUTPUTS_AT_ONCE", at_once)
    dice = random.Random(3)
    for _ in range(100):
        ids = [str(index) for index in range(dice.randint(1, 10))]
        above = {one: [ids[dice.randrange(index)] for _ in range(dice.randint(0, 2)) if index] for index, one in enumerate(ids)}
        outputs, wrong = dice.sample(ids, dice.randint(1, len(ids))), dice.sample(ids, dice.randint(1, len(ids)))
        found = failing_outputs(outputs, ids[::-1], above, wrong, 1)
        expected = {one: outputs_by_force(outputs, above, one) for one in wrong}
        assert found == {one: listed for one, listed in expected.items() if listed}


def test_no_more_outputs_are_looked_at_than_are_listed(monkeypatch):
    monkeypatch.setattr(failures, "OUTPUTS_AT_ONCE", 10)
    monkeypatch.setattr(failures, "MAX_DEPENDENT_OUTPUTS", 20)
    outputs = [f"o{index}" for index in range(1000)]
    asked = []

    class Above(dict):
        def get(self, node_id, default=()):
            asked.append(node_id)
            return super().get(node_id, default)

    above = Above({output: ["w"] for output in outputs} | {"w": []})
    assert failing_outputs(outputs, [*outputs, "w"], above, ["w"], 1) == {"w": outputs[:20]}
    assert len(asked) < 50


def entry(*errors, outputs=("o",)):
    return {"errors": list(errors), "dependent_outputs": list(outputs), "class_type": "C"}


def error(details):
    return {"type": "t", "message": "m", "details": details, "extra_info": {}}


def test_an_answer_holds_what_fits_and_at_least_one_of_each():
    small = {str(index): entry(error("d")) for index in range(10)}
    assert bounded(small.items()) == small
    long = "x" * (MAX_ANSWER // 3)
    kept = bounded({str(index): entry(error(long)) for index in range(10)}.items())
    assert list(kept) == ["0", "1", "2"]
    kept = bounded({"a": entry(*[error(long)] * 10, outputs=["o" * 100] * 10), "b": entry(error("d"))}.items())
    assert list(kept) == ["a"] and len(kept["a"]["errors"]) == 3 and len(kept["a"]["dependent_outputs"]) == 1


def test_the_summary_is_cut_and_says_how_many_are_left_out():
    text = details_of({"1": entry(error("a"), error("b")), "2": entry(error("c"))}, 0)
    assert text == "m: a\nm: b\nm: c"
    text = details_of({str(index): entry(error("x" * 900)) for index in range(50)}, 7)
    assert len(text) < 10_000 and text.endswith("…\n7 more nodes have errors")
    assert len(details_of({"1": entry(error("x" * 50_000))}, 0)) <= 10_000


def test_thousands_of_bad_links_and_as_many_outputs_are_answered_in_bounds(caplog):
    count = 8000
    caplog.set_level("ERROR", "comfy_execution")
    for name in ("a", "undeclared"):
        classes = {**CLASSES, "Show": declare({}, {"a": ("T",)}, OUTPUT_NODE=True)}
        _, _, _, node_errors = check({str(index): node("Show", **{name: (f"lost{index}", 0)}) for index in range(count)}, classes=classes)
        assert weight(node_errors, 10 * MAX_ANSWER) < 2 * MAX_ANSWER and node_errors
        assert all(len(one["dependent_outputs"]) == 1 for one in node_errors.values())
    assert len(caplog.text) < 100_000


def test_a_chain_that_fails_at_its_end_lists_every_output():
    count = 9000
    classes = {**CLASSES, "Link": declare({"a": ("T",)}, OUTPUT_NODE=True)}
    prompt = {str(index): node("Link", a=(str(index + 1), 0)) for index in range(count)} | {str(count): node("Make")}
    _, _, _, node_errors = check(prompt, classes=classes)
    assert node_errors[str(count)]["dependent_outputs"] == [str(index) for index in range(count)]


def test_every_lost_link_names_its_outputs():
    prompt = {"m": node("Make", x=1, z=("gone", 0)), "n": node("Make", x=1, z=("gone", 0)), "unused": node("Make", x=1, z=("gone", 0))}
    prompt |= {"s1": node("Show", a=("m", 0)), "s2": node("Show", a=("n", 0)), "s3": node("Show", a=("m", 0), z=("n", 0))}
    _, _, _, node_errors = check(prompt)
    assert {node_id: one["dependent_outputs"] for node_id, one in node_errors.items()} == {"m": ["s1", "s3"], "n": ["s2", "s3"]}
