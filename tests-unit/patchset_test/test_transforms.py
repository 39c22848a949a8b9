"""Each transform by text before and after, and by what it refuses."""

import libcst as cst
import pytest

from patchset.outcomes import Verdict
from patchset.transforms import AddImport, AddMethod, Decorate, InsertAfter, RemoveDefinition, ReplaceBody, ReplaceImport, Transform


def changed(transform: Transform, text: str) -> tuple[str, Verdict]:
    module, outcome = transform.apply(cst.parse_module(text))
    return module.code, outcome.verdict


def always(function: cst.FunctionDef) -> bool:
    return True


BEFORE = """import os
from pkg.base import thing   # kept

# about Box
class Box:
    def __init__(self, a):
        super().__init__(a)
        self.a = a

    # about get
    async def get(self, key):
        return  self.find( key )

    def find(self, key):
        return key


def walk(item):
    return walk(item)
"""


@pytest.mark.parametrize(
    ("transform", "removed", "added"),
    [
        (
            AddImport("f.py", "pkg.new", "fresh", "pkg.base", "thing"),
            "",
            "from pkg.base import thing   # kept\nfrom pkg.new import fresh\n",
        ),
        (ReplaceImport("f.py", "pkg.new", "fresh", "pkg.base", "thing"), "pkg.base", "import os\nfrom pkg.new import fresh   # kept\n"),
        (Decorate("f.py", "walk", "bounded"), "", "@bounded\ndef walk(item):\n"),
        (InsertAfter("f.py", "Box.__init__", "self.a = a", "self.b = make(a)"), "", "        self.a = a\n        self.b = make(a)\n"),
        (
            ReplaceBody("f.py", "Box.get", "return await self.new(key)\n", always, "x"),
            "self.find( key )",
            "    # about get\n    async def get(self, key):\n        return await self.new(key)\n",
        ),
        (
            AddMethod("f.py", "Box", "get", "def size(self):\n    return 1"),
            "",
            "        return  self.find( key )\n\n    def size(self):\n        return 1\n\n    def find(self, key):\n",
        ),
        (
            RemoveDefinition("f.py", "Box.find", "Box.get", always, "x"),
            "def find",
            "    async def get(self, key):\n        return  self.find( key )\n\n\ndef walk",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Transform) else "",
)
def test_transform_changes_its_place_only_and_only_once(transform, removed, added):
    after, verdict = changed(transform, BEFORE)
    assert verdict is Verdict.APPLIED
    assert added in after
    assert not removed or removed not in after
    untouched = [line for line in BEFORE.splitlines() if line not in after.splitlines()]
    assert all(removed and (removed in line or "return key" in line) for line in untouched)
    assert changed(transform, after) == (after, Verdict.ALREADY_THERE)


@pytest.mark.parametrize(
    ("transform", "text", "verdict"),
    [
        (AddImport("f.py", "n", "x", "pkg.base", "thing"), "import os\n", Verdict.MISSING),
        (AddImport("f.py", "n", "x", "pkg.base", "thing"), "from pkg.base import thing\nfrom pkg.base import thing\n", Verdict.AMBIGUOUS),
        (ReplaceImport("f.py", "n", "x", "pkg.base", "thing"), "from pkg.base import thing, other\n", Verdict.MISSING),
        (Decorate("f.py", "walk", "bounded"), "def stroll(): pass\n", Verdict.MISSING),
        (Decorate("f.py", "walk", "bounded"), "def walk(): pass\ndef walk(): pass\n", Verdict.AMBIGUOUS),
        (Decorate("f.py", "walk", "bounded"), "class walk: pass\n", Verdict.MISSING),
        (InsertAfter("f.py", "f", "a = 1", "b = 2"), "def f():\n    a = 2\n", Verdict.MISSING),
        (InsertAfter("f.py", "f", "a = 1", "b = 2"), "def f():\n    a = 1\n    a = 1\n", Verdict.AMBIGUOUS),
        (InsertAfter("f.py", "f", "a = 1", "b = 2"), "def f():\n    if x:\n        a = 1\n", Verdict.MISSING),
        (ReplaceBody("f.py", "f", "return 2\n", lambda function: False, "x"), "def f():\n    return 1\n", Verdict.MISSING),
        (ReplaceBody("f.py", "f", "return 2\n", always, "x"), "def f(): pass\ndef f(): pass\n", Verdict.AMBIGUOUS),
        (AddMethod("f.py", "C", "a", "def b(self): pass"), "class C:\n    def c(self): pass\n", Verdict.MISSING),
        (AddMethod("f.py", "C", "a", "def b(self): pass"), "class C:\n    def a(self): pass\n    def a(self): pass\n", Verdict.AMBIGUOUS),
        (RemoveDefinition("f.py", "f", "g", lambda function: False, "x"), "def f():\n    return 1\n", Verdict.MISSING),
        (RemoveDefinition("f.py", "f", "g", always, "x"), "def renamed(): pass\n", Verdict.MISSING),
        (RemoveDefinition("f.py", "f", "g", always, "x"), "def f(): pass\ndef f(): pass\n", Verdict.AMBIGUOUS),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Transform) else "",
)
def test_missing_and_ambiguous_anchors_change_nothing(transform, text, verdict):
    after, found = changed(transform, text)
    assert (after, found) == (text, verdict)
    assert found.is_failure


def test_line_ends_and_indentation_of_the_file_are_kept():
    text = BEFORE.replace("\n", "\r\n")
    after, _ = changed(InsertAfter("f.py", "Box.__init__", "self.a = a", "self.b = 1"), text)
    assert "\r\n        self.b = 1\r\n" in after
    assert "\n" not in after.replace("\r\n", "")
