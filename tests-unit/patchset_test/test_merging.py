"""Merging two changes of a text."""

import random

import pytest

from patchset.merging import merged

OLD = b"one\ntwo\nthree\nfour\n"


@pytest.mark.parametrize(
    ("one", "other", "result"),
    [
        (OLD, OLD, OLD),
        (b"ONE\ntwo\nthree\nfour\n", b"one\ntwo\nthree\nFOUR\n", b"ONE\ntwo\nthree\nFOUR\n"),
        (b"one\nTWO\nthree\nfour\n", b"one\ntwo\nTHREE\nfour\n", b"one\nTWO\nTHREE\nfour\n"),
        (b"one\nthree\nfour\n", b"one\ntwo\nTHREE\nfour\n", b"one\nTHREE\nfour\n"),
        (b"one\nnew\ntwo\nthree\nfour\n", b"one\nTWO\nthree\nfour\n", b"one\nnew\nTWO\nthree\nfour\n"),
        (b"one\nTWO\nthree\nfour\n", b"one\nTWO\nthree\nfour\n", b"one\nTWO\nthree\nfour\n"),
        (b"one\nTWO\nthree\nfour\n", b"one\n2\nthree\nfour\n", None),
        (b"one\nTWO\nthree\nfour\n", b"one\nfour\n", None),
        (b"one\na\ntwo\nthree\nfour\n", b"one\nb\ntwo\nthree\nfour\n", None),
        (b"", b"one\ntwo\nTHREE\nfour\n", None),
        (b"one\ntwo\nthree\nfour", b"ONE\ntwo\nthree\nfour\n", b"ONE\ntwo\nthree\nfour"),
    ],
)
def test_changes_beside_each_other_are_both_made_and_overlaps_refused(one, other, result):
    assert merged(OLD, one, other) == result
    assert merged(OLD, other, one) == result


@pytest.mark.parametrize("seed", range(50))
def test_taking_a_change_out_again_leaves_what_others_changed(seed):
    """Lines of one kind are changed by the first, of another kind by the second."""
    dice = random.Random(seed)
    kinds = [dice.choice("abc") for _ in range(60)]
    before = [f"{kind}{index}\n" for index, kind in enumerate(kinds)]
    first = [line.upper() if kind == "a" and dice.random() < 0.5 else line for line, kind in zip(before, kinds)]
    both = [line.replace("b", "bb") for line in first]
    second = [line.replace("b", "bb") for line in before]
    joined = ["".join(lines).encode() for lines in (first, both, before, second)]
    assert merged(*joined[:3]) == joined[3]
