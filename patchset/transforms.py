"""The edits a series is made of. Each transform changes one place of one file and says what it found there.

Every transform recognises its own result, so applying twice changes nothing, and never guesses: an anchor that is missing or occurs
twice is reported, and the file stays as it was.
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import libcst as cst

from patchset import anchors
from patchset.outcomes import Outcome, Verdict

Result = tuple[cst.Module, Outcome]


class Transform(abc.ABC):
    """One edit. *path* is relative to the checkout; *anchor* names the place for the reader."""

    path: str
    anchor: str
    expected: str

    @abc.abstractmethod
    def apply(self, module: cst.Module) -> Result:
        """The changed file and the outcome; the same module object when nothing is changed."""

    def _outcome(self, verdict: Verdict) -> Outcome:
        return Outcome(verdict, self.path, self.anchor, self.expected)

    def _unchanged(self, module: cst.Module, verdict: Verdict) -> Result:
        return module, self._outcome(verdict)


def _verdict_for(count: int) -> Verdict:
    return Verdict.MISSING if count == 0 else Verdict.AMBIGUOUS


class DefinitionTransform(Transform):
    """An edit of the one function or class that *anchor* names."""

    of_function = True

    def apply(self, module: cst.Module) -> Result:
        """Put what :meth:`change` makes of the definition in its place."""
        found = anchors.find(module, self.anchor)
        if len(found) != 1:
            return self._unchanged(module, _verdict_for(len(found)))
        if self.of_function and not isinstance(found[0], cst.FunctionDef):
            return self._unchanged(module, Verdict.MISSING)
        changed = self.change(found[0], module)
        if isinstance(changed, Verdict):
            return self._unchanged(module, changed)
        return anchors.replaced(module, found[0], changed), self._outcome(Verdict.APPLIED)

    @abc.abstractmethod
    def change(self, definition: anchors.Definition, module: cst.Module) -> cst.CSTNode | Verdict:
        """The definition as it shall be, or why it stays as it is."""


@dataclass(frozen=True)
class AddImport(Transform):
    """Add ``from module import name`` on a line of its own after the anchor import ``from after_module import after_name``."""

    path: str
    module: str
    name: str
    after_module: str
    after_name: str

    @property
    def anchor(self) -> str:  # type: ignore[override]
        """The import that the new line follows."""
        return f"from {self.after_module} import {self.after_name}"

    @property
    def expected(self) -> str:  # type: ignore[override]
        """That import, once, at the top level."""
        return "that import once, at the top level of the file"

    def apply(self, module: cst.Module) -> Result:
        """Insert the line, unless the name is imported already."""
        if any(anchors.is_import_of(line, self.module, self.name) for line in module.body):
            return self._unchanged(module, Verdict.ALREADY_THERE)
        places = [i for i, line in enumerate(module.body) if anchors.is_import_of(line, self.after_module, self.after_name)]
        if len(places) != 1:
            return self._unchanged(module, _verdict_for(len(places)))
        line = cst.parse_statement(f"from {self.module} import {self.name}\n", config=module.config_for_parsing)
        body = [*module.body[: places[0] + 1], line, *module.body[places[0] + 1 :]]
        return module.with_changes(body=body), self._outcome(Verdict.APPLIED)


@dataclass(frozen=True)
class ReplaceImport(Transform):
    """Turn the line ``from old_module import old_name``, no longer used in the file, into ``from module import name``."""

    path: str
    module: str
    name: str
    old_module: str
    old_name: str

    @property
    def anchor(self) -> str:  # type: ignore[override]
        """The import that goes."""
        return f"from {self.old_module} import {self.old_name}"

    @property
    def expected(self) -> str:  # type: ignore[override]
        """That import, once, importing nothing else."""
        return "that import once, with no other name on the line"

    def apply(self, module: cst.Module) -> Result:
        """Replace the line, unless the new one is there and the old one gone."""
        old = [line for line in module.body if anchors.is_import_of(line, self.old_module, self.old_name)]
        if not old and any(anchors.is_import_of(line, self.module, self.name) for line in module.body):
            return self._unchanged(module, Verdict.ALREADY_THERE)
        if len(old) != 1 or anchors.source_of(cast(cst.SimpleStatementLine, old[0]).body[0]) != self.anchor:
            return self._unchanged(module, _verdict_for(len(old)) if len(old) != 1 else Verdict.MISSING)
        line = cast(cst.SimpleStatementLine, old[0])
        new = cst.parse_statement(f"from {self.module} import {self.name}")
        changed = line.with_changes(body=cast(cst.SimpleStatementLine, new).body)
        return anchors.replaced(module, line, changed), self._outcome(Verdict.APPLIED)


@dataclass(frozen=True)
class Decorate(DefinitionTransform):
    """Put ``@decorator`` on the function *anchor*, nearest to its ``def``."""

    path: str
    anchor: str
    decorator: str

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The function, once."""
        return "one function of that name"

    def change(self, definition: anchors.Definition, module: cst.Module) -> cst.CSTNode | Verdict:
        """With the decorator, unless the function carries it already."""
        if any(anchors.source_of(line.decorator) == self.decorator for line in definition.decorators):
            return Verdict.ALREADY_THERE
        line = cst.Decorator(decorator=cst.parse_expression(self.decorator))
        return definition.with_changes(decorators=[*definition.decorators, line])


@dataclass(frozen=True)
class InsertAfter(DefinitionTransform):
    """Insert *lines* after the only statement of function *anchor*'s body that reads like *statement*."""

    path: str
    anchor: str
    statement: str
    lines: str
    of_function = False

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The function once, and the statement once in its body."""
        return f"the statement {self.statement!r} once in its body"

    def change(self, definition: anchors.Definition, module: cst.Module) -> cst.CSTNode | Verdict:
        """With the lines, unless they stand in the body already."""
        body, new = list(definition.body.body), _parse(self.lines, module)
        if all(any(anchors.shape(anchors.source_of(line))(have) for have in body) for line in new):
            return Verdict.ALREADY_THERE
        places = [i for i, line in enumerate(body) if anchors.shape(self.statement)(line)]
        if len(places) != 1:
            return _verdict_for(len(places))
        return definition.with_deep_changes(definition.body, body=[*body[: places[0] + 1], *new, *body[places[0] + 1 :]])


@dataclass(frozen=True)
class ReplaceBody(DefinitionTransform):
    """Give the function *anchor* the body *lines*, provided its present body is recognised by *recognise*."""

    path: str
    anchor: str
    lines: str
    recognise: Callable[[cst.FunctionDef], bool]
    expected: str

    def change(self, definition: anchors.Definition, module: cst.Module) -> cst.CSTNode | Verdict:
        """With the new body, unless it reads like that already."""
        new, have = _parse(self.lines, module), list(definition.body.body)
        if len(have) == len(new) and all(anchors.shape(anchors.source_of(line))(old) for line, old in zip(new, have)):
            return Verdict.ALREADY_THERE
        if not self.recognise(cast(cst.FunctionDef, definition)):
            return Verdict.MISSING
        return definition.with_deep_changes(definition.body, body=new)


@dataclass(frozen=True)
class AddMethod(DefinitionTransform):
    """Add the method in *text* to the class *anchor*, after its method *after*."""

    path: str
    anchor: str
    after: str
    text: str
    of_function = False

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The class once, and the method once in it."""
        return f"the class, with one method {self.after}"

    def change(self, definition: anchors.Definition, module: cst.Module) -> cst.CSTNode | Verdict:
        """With the method, unless one of its name is there."""
        method = cast(cst.FunctionDef, _parse(self.text.strip() + "\n", module)[0])
        body = list(definition.body.body)
        if anchors.definitions(body, method.name.value):
            return Verdict.ALREADY_THERE
        places = [i for i, node in enumerate(body) if isinstance(node, cst.FunctionDef) and node.name.value == self.after]
        if len(places) != 1:
            return _verdict_for(len(places))
        method = method.with_changes(leading_lines=[cst.EmptyLine(indent=False)])
        return definition.with_deep_changes(definition.body, body=[*body[: places[0] + 1], method, *body[places[0] + 1 :]])


@dataclass(frozen=True)
class RemoveDefinition(Transform):
    """Delete the function *anchor* with the comment above it. A file that lacks it counts as done only if it has *successor*, the
    definition that the same series adds; else the function was renamed or removed by someone else."""

    path: str
    anchor: str
    successor: str
    recognise: Callable[[cst.FunctionDef], bool]
    expected: str

    def apply(self, module: cst.Module) -> Result:
        """Remove the definition, unless its successor stands there already."""
        found = anchors.find(module, self.anchor)
        if not found:
            return self._unchanged(module, Verdict.ALREADY_THERE if anchors.find(module, self.successor) else Verdict.MISSING)
        if len(found) > 1:
            return self._unchanged(module, Verdict.AMBIGUOUS)
        if not isinstance(found[0], cst.FunctionDef) or not self.recognise(found[0]):
            return self._unchanged(module, Verdict.MISSING)
        return anchors.replaced(module, found[0], None), self._outcome(Verdict.APPLIED)


def _parse(lines: str, module: cst.Module) -> Sequence[cst.BaseStatement]:
    """*lines* as statements; indentation and line ends become the file's when the file is written."""
    return cast(Sequence[cst.BaseStatement], cst.parse_module(lines, config=module.config_for_parsing).body)
