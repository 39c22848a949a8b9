"""Edits of single statements at any depth of a file, and the removal of what they make useless."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import libcst as cst

from patchset import anchors
from patchset.outcomes import Verdict
from patchset.transforms import Result, Transform


@dataclass(frozen=True)
class ReplaceStatement(Transform):
    """Put *lines* in the place of the only statement that reads like *statement*, in function or class *within* at any depth.

    Without *within* it is looked for in the whole file. Where *lines* contain the statement itself, its own text is kept; blank lines above
    it are those of *lines*, and those that were above it come first.
    """

    path: str
    within: str
    statement: str
    lines: str

    @property
    def anchor(self) -> str:  # type: ignore[override]
        """The function or class, or the statement itself."""
        return self.within or self.statement

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The statement, once."""
        return f"the statement {self.statement.strip()!r} once"

    def apply(self, module: cst.Module) -> Result:
        """Replace the statement, unless the lines stand there already."""
        roots = _roots(module, self.within)
        if len(roots) != 1:
            return self._unchanged(module, Verdict.AMBIGUOUS if roots else Verdict.MISSING)
        new = _parse(self.lines, module)
        tests = _tests(new)
        if any(_stand_in(tests, block.body) for block in anchors.blocks(roots[0])):
            return self._unchanged(module, Verdict.ALREADY_THERE)
        is_it = anchors.shape(self.statement)
        places = [(block, index) for block in anchors.blocks(roots[0]) for index, line in enumerate(block.body) if is_it(line)]
        if len(places) != 1:
            return self._unchanged(module, Verdict.AMBIGUOUS if places else Verdict.MISSING)
        block, index = places[0]
        old = block.body[index]
        above = getattr(old, "leading_lines", ())
        placed = [old.with_changes(leading_lines=getattr(line, "leading_lines", ())) if is_it(line) else line for line in new]
        placed[:1] = [line.with_changes(leading_lines=above) for line in placed[:1]]
        body = [*block.body[:index], *placed, *block.body[index + 1 :]]
        return anchors.replaced(module, block, block.with_changes(body=body)), self._outcome(Verdict.APPLIED)


@dataclass(frozen=True)
class InsertInFinally(Transform):
    """Put *lines* first in the only ``finally`` below ``if __name__ == "__main__":``, whatever else is done there."""

    path: str
    lines: str
    anchor = "if __name__ == '__main__'"
    expected = "one try there that has a finally"

    def apply(self, module: cst.Module) -> Result:
        """Insert the lines, unless they stand there."""
        starts = [line for line in module.body if isinstance(line, cst.If) and _is_start(line)]
        tries = [line for start in starts for line in start.body.body if isinstance(line, cst.Try) and line.finalbody is not None]
        if len(tries) != 1:
            return self._unchanged(module, Verdict.AMBIGUOUS if tries else Verdict.MISSING)
        block = cast(cst.Finally, tries[0].finalbody).body
        new = _parse(self.lines, module)
        if not isinstance(block, cst.IndentedBlock):
            return self._unchanged(module, Verdict.MISSING)
        if _stand_in(_tests(new), block.body):
            return self._unchanged(module, Verdict.ALREADY_THERE)
        return anchors.replaced(module, block, block.with_changes(body=[*new, *block.body])), self._outcome(Verdict.APPLIED)


def _is_start(line: cst.If) -> bool:
    """Whether *line* begins what runs when the file is the program."""
    return isinstance(line.test, cst.Comparison) and anchors.source_of(line.test.left) == "__name__"


@dataclass(frozen=True)
class RemoveUnused(Transform):
    """Delete what another edit of the series leaves without use: the function *anchor*, or the top-level line that reads like it.

    A file that lacks it counts as done only if function *where* has the statement *replacement*; else someone else removed it.
    """

    path: str
    anchor: str
    where: str
    replacement: str
    recognise: Callable[[cst.FunctionDef], bool] | None = None

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The definition or line, once."""
        return "that line once" if self.recognise is None else "one function of that name, with the body known"

    def apply(self, module: cst.Module) -> Result:
        """Remove it, unless its replacement stands and it is gone."""
        found: Sequence[cst.CSTNode]
        if self.recognise is None:
            found = [line for line in module.body if anchors.shape(self.anchor)(line)]
        else:
            found = anchors.find(module, self.anchor)
        if not found:
            return self._unchanged(module, Verdict.ALREADY_THERE if self._is_replaced(module) else Verdict.MISSING)
        if len(found) > 1:
            return self._unchanged(module, Verdict.AMBIGUOUS)
        node = found[0]
        if self.recognise is not None and not (isinstance(node, cst.FunctionDef) and self.recognise(node)):
            return self._unchanged(module, Verdict.MISSING)
        return anchors.replaced(module, node, None), self._outcome(Verdict.APPLIED)

    def _is_replaced(self, module: cst.Module) -> bool:
        return any(map(anchors.shape(self.replacement), _lines_in(module, self.where)))


@dataclass(frozen=True)
class RemoveStatement(Transform):
    """Delete the only statement in function or class *anchor* that reads like *statement*, which the series leaves without use.

    A file that lacks it counts as done only if function *where* has the statement *replacement*.
    """

    path: str
    anchor: str
    statement: str
    where: str
    replacement: str

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The statement, once."""
        return f"the statement {self.statement.strip()!r} once"

    def apply(self, module: cst.Module) -> Result:
        """Remove it, unless it is gone and its replacement stands."""
        is_it, is_new = anchors.shape(self.statement), anchors.shape(self.replacement)
        places = [
            line for root in anchors.find(module, self.anchor) for block in anchors.blocks(root) for line in block.body if is_it(line)
        ]
        if len(places) == 1:
            return anchors.replaced(module, places[0], None), self._outcome(Verdict.APPLIED)
        if not places and any(map(is_new, _lines_in(module, self.where))):
            return self._unchanged(module, Verdict.ALREADY_THERE)
        return self._unchanged(module, Verdict.AMBIGUOUS if places else Verdict.MISSING)


def _roots(module: cst.Module, within: str) -> Sequence[cst.CSTNode]:
    return anchors.find(module, within) if within else [module]


def _lines_in(module: cst.Module, name: str) -> Iterator[cst.CSTNode]:
    """The statements at any depth of the definition called *name*."""
    return (line for root in anchors.find(module, name) for block in anchors.blocks(root) for line in block.body)


def _tests(lines: Sequence[cst.BaseStatement]) -> list[Callable[[cst.CSTNode], bool]]:
    """A test for each of *lines*."""
    return [anchors.shape(anchors.source_of(line)) for line in lines]


def _stand_in(tests: Sequence[Callable[[cst.CSTNode], bool]], body: Sequence[cst.CSTNode]) -> bool:
    """Whether lines that pass *tests* stand in *body*, one after the other."""
    return any(all(test(body[start + offset]) for offset, test in enumerate(tests)) for start in range(len(body) - len(tests) + 1))


def _parse(lines: str, module: cst.Module) -> Sequence[cst.BaseStatement]:
    return cast(Sequence[cst.BaseStatement], cst.parse_module(lines, config=module.config_for_parsing).body)
