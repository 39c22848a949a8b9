"""Edits of single statements: text before and after, what counts as done, what is refused."""

import libcst as cst
import pytest

from patchset.outcomes import Verdict
from patchset.statement_transforms import RemoveUnused, ReplaceStatement

BEFORE = """import asyncio
import sys   # kept


class Box:
    def get(self, key):
        # about the first
        value = self.find(key)
        if value is None:
            # about the second
            log( key )
            return None
        return value

    # about find
    def find(self, key):
        return look(key)


if __name__ == "__main__":
    try:
        run()
    finally:
        log("end")   # tidy
"""


def changed(transform, text=BEFORE):
    module, outcome = transform.apply(cst.parse_module(text))
    return module.code, outcome.verdict


def line_changes(after):
    old, new = BEFORE.splitlines(), after.splitlines()
    return [line.strip() for line in old if line not in new], [line.strip() for line in new if line not in old]


@pytest.mark.parametrize(
    ("transform", "gone", "come"),
    [
        (
            ReplaceStatement("f.py", "Box.get", "value = self.find(key)", "value = new(key)"),
            ["value = self.find(key)"],
            ["value = new(key)"],
        ),
        (ReplaceStatement("f.py", "Box.get", "log(key)", "warn(key)\ncount()"), ["log( key )"], ["warn(key)", "count()"]),
        (ReplaceStatement("f.py", "Box.get", "log(key)", "count()\nlog(key)"), [], ["count()"]),
        (ReplaceStatement("f.py", "", 'log("end")', 'log("end")\nclose()'), [], ["close()"]),
        (ReplaceStatement("f.py", "", "import asyncio", "import json"), ["import asyncio"], ["import json"]),
        (
            ReplaceStatement("f.py", "Box.get", "if value is None:\n    log(key)\n    return None", "check(value)"),
            ["if value is None:", "# about the second", "log( key )", "return None"],
            ["check(value)"],
        ),
    ],
    ids=["in a body", "in a block", "before it", "in the file", "at the top", "a block"],
)
def test_a_statement_is_replaced_where_it_stands_and_only_once(transform, gone, come):
    after, verdict = changed(transform)
    assert verdict is Verdict.APPLIED
    assert line_changes(after) == (gone, come)
    assert changed(transform, after) == (after, Verdict.ALREADY_THERE)
    compile(after, "f.py", "exec")


def test_the_comment_above_stays_above():
    after, _ = changed(ReplaceStatement("f.py", "Box.get", "log(key)", "count()\nlog(key)"))
    assert "            # about the second\n            count()\n            log( key )\n" in after


@pytest.mark.parametrize(
    ("within", "statement", "verdict"),
    [
        ("Box.get", "value = self.seek(key)", Verdict.MISSING),
        ("Box.put", "log(key)", Verdict.MISSING),
        ("", "return None\n", Verdict.MISSING),
        ("Box.find", "log(key)", Verdict.MISSING),
    ],
)
def test_what_is_not_there_is_refused(within, statement, verdict):
    text = BEFORE.replace("return None", "return 0")
    assert changed(ReplaceStatement("f.py", within, statement, "pass"), text) == (text, verdict)


def test_statements_that_occur_twice_are_ambiguous():
    text = BEFORE.replace("return value", "log(key)")
    assert changed(ReplaceStatement("f.py", "Box.get", "log(key)", "pass"), text) == (text, Verdict.AMBIGUOUS)
    twice = text + "\n\nclass Box:\n    pass\n"
    assert changed(ReplaceStatement("f.py", "Box", "value = self.find(key)", "pass"), twice) == (twice, Verdict.AMBIGUOUS)


def calls_look(function):
    return "look" in cst.Module([]).code_for_node(function)


FIND = RemoveUnused("f.py", "Box.find", "Box.get", "value = new(key)", calls_look)
ASYNCIO = RemoveUnused("f.py", "import asyncio", "Box.get", "value = new(key)")


@pytest.mark.parametrize(
    ("transform", "gone"),
    [(FIND, ["# about find", "def find(self, key):", "return look(key)"]), (ASYNCIO, ["import asyncio"])],
    ids=["method", "import"],
)
def test_what_lost_its_use_goes_and_its_absence_counts_only_beside_the_replacement(transform, gone):
    after, verdict = changed(transform)
    assert verdict is Verdict.APPLIED and line_changes(after) == (gone, [])
    assert changed(transform, after) == (after, Verdict.MISSING)
    replaced = after.replace("self.find(key)", "new(key)")
    assert changed(transform, replaced) == (replaced, Verdict.ALREADY_THERE)


def test_a_method_that_was_rewritten_or_doubled_is_not_removed():
    rewritten = BEFORE.replace("look(key)", "seek(key)")
    assert changed(FIND, rewritten) == (rewritten, Verdict.MISSING)
    doubled = BEFORE.replace("    # about find", "    def find(self):\n        return look(0)\n\n    # about find")
    assert changed(FIND, doubled) == (doubled, Verdict.AMBIGUOUS)
