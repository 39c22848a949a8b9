"""Nodes that join, cut, change, compare and search texts."""

from __future__ import annotations

import json
import re
import string as string_module
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io
from comfy_extras.node_inputs import boolean, combo, socket, text, whole

_CASES = {"UPPERCASE": str.upper, "lowercase": str.lower, "Capitalize": str.capitalize, "Title Case": str.title}
_TRIMS = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}
_COMPARISONS: dict[str, Callable[[str, str], bool]] = {"Starts With": str.startswith, "Ends With": str.endswith, "Equal": str.__eq__}
_LINES = text(multiline=True)


class _TextNode:
    """Attributes that most nodes of this module share."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "execute"
    CATEGORY = "text"


class _SafeFormatter(string_module.Formatter):
    """``str.format`` without access to private attributes of the values."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        """The value that a field names. Raises ``ValueError`` if the name of an attribute begins with an underscore."""
        if re.search(r"[.\[]_", field_name):
            raise ValueError(f"the field {{{field_name}}} reads a private attribute; name values and their public attributes only")
        return super().get_field(field_name, args, kwargs)


class StringFormat(io.ComfyNode):
    """Fills the fields of a text with values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        values = io.Autogrow.TemplateNames(io.AnyType.Input("value"), names=list(string_module.ascii_lowercase), min=0)
        return io.Schema(
            node_id="StringFormat",
            display_name="Format Text",
            category="text",
            search_aliases=["string", "format"],
            description="Replaces fields such as {a} or {b:.2f} by values, as Python's str.format does.",
            inputs=[io.Autogrow.Input("values", template=values), io.String.Input("f_string", default="{a}", multiline=True)],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, values: Any, f_string: str) -> io.NodeOutput:
        """*f_string* with its fields filled. Raises ``ValueError``, ``KeyError`` or ``IndexError`` for wrong fields."""
        return io.NodeOutput(_SafeFormatter().vformat(f_string, (), values))


class StringConcatenate(_TextNode):
    """Joins two texts."""

    SEARCH_ALIASES = [
        "concatenate",
        "text concat",
        "join text",
        "merge text",
        "combine strings",
        "string concat",
        "append text",
        "combine text",
    ]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string_a": _LINES, "string_b": _LINES, "delimiter": text("", False)}}

    @classmethod
    def execute(cls, string_a: str, string_b: str, delimiter: str) -> tuple[str]:
        """Both texts with *delimiter* between."""
        return (f"{string_a}{delimiter}{string_b}",)


class StringSubstring(_TextNode):
    """Cuts a piece out of a text."""

    SEARCH_ALIASES = ["substring", "extract text", "text portion"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": _LINES, "start": socket("INT"), "end": socket("INT")}}

    @classmethod
    def execute(cls, string: str, start: int, end: int) -> tuple[str]:
        """The characters from *start* up to *end*; negative numbers count from the end."""
        return (string[start:end],)


class StringLength(_TextNode):
    """Counts the characters of a text."""

    RETURN_TYPES, RETURN_NAMES = ("INT",), ("length",)
    SEARCH_ALIASES = ["character count", "text size", "string length"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": _LINES}}

    @classmethod
    def execute(cls, string: str) -> tuple[int]:
        """The number of characters."""
        return (len(string),)


class CaseConverter(_TextNode):
    """Changes a text to upper or lower case."""

    SEARCH_ALIASES = ["case converter", "text case", "uppercase", "lowercase", "capitalize"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": _LINES, "mode": combo(list(_CASES))}}

    @classmethod
    def execute(cls, string: str, mode: str) -> tuple[str]:
        """The changed text."""
        return (_CASES[mode](string),)


class StringTrim(_TextNode):
    """Removes white space from the ends of a text."""

    SEARCH_ALIASES = ["trim", "clean whitespace", "remove whitespace", "remove spaces", "strip"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": _LINES, "mode": combo(list(_TRIMS))}}

    @classmethod
    def execute(cls, string: str, mode: str) -> tuple[str]:
        """The trimmed text."""
        return (_TRIMS[mode](string),)


class StringReplace(_TextNode):
    """Replaces a piece of text wherever it occurs."""

    SEARCH_ALIASES = ["replace", "find and replace", "substitute", "swap text"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": _LINES, "find": _LINES, "replace": _LINES}}

    @classmethod
    def execute(cls, string: str, find: str, replace: str) -> tuple[str]:
        """The text with every *find* replaced."""
        return (string.replace(find, replace),)


class StringContains(_TextNode):
    """Tells whether a text contains another one."""

    RETURN_TYPES, RETURN_NAMES = ("BOOLEAN",), ("contains",)
    SEARCH_ALIASES = ["contains", "text includes", "string includes"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": _LINES, "substring": _LINES, "case_sensitive": boolean(True, advanced=True)}}

    @classmethod
    def execute(cls, string: str, substring: str, case_sensitive: bool) -> tuple[bool]:
        """Whether it does."""
        return (substring in string if case_sensitive else substring.lower() in string.lower(),)


class StringCompare(_TextNode):
    """Compares two texts."""

    RETURN_TYPES = ("BOOLEAN",)
    SEARCH_ALIASES = ["compare", "text match", "string equals", "starts with", "ends with"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "string_a": _LINES,
                "string_b": _LINES,
                "mode": combo(list(_COMPARISONS)),
                "case_sensitive": boolean(True, advanced=True),
            }
        }

    @classmethod
    def execute(cls, string_a: str, string_b: str, mode: str, case_sensitive: bool) -> tuple[bool]:
        """Whether *string_a* starts with, ends with or equals *string_b*."""
        pair = (string_a, string_b) if case_sensitive else (string_a.lower(), string_b.lower())
        return (_COMPARISONS[mode](*pair),)


_PATTERN_SWITCHES = {
    "case_insensitive": boolean(True, advanced=True),
    "multiline": boolean(False, advanced=True),
    "dotall": boolean(False, advanced=True),
}


def _flags(case_insensitive: bool, multiline: bool, dotall: bool) -> int:
    chosen = ((case_insensitive, re.IGNORECASE), (multiline, re.MULTILINE), (dotall, re.DOTALL))
    return sum(flag for wanted, flag in chosen if wanted)


class RegexMatch(_TextNode):
    """Tells whether a pattern occurs in a text."""

    RETURN_TYPES, RETURN_NAMES = ("BOOLEAN",), ("matches",)
    SEARCH_ALIASES = ["regex match", "regex", "pattern match", "text contains", "string match"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": _LINES, "regex_pattern": _LINES, **_PATTERN_SWITCHES}}

    @classmethod
    def execute(cls, string: str, regex_pattern: str, case_insensitive: bool, multiline: bool, dotall: bool) -> tuple[bool]:
        """Whether it does; a pattern that is none never occurs."""
        try:
            return (re.search(regex_pattern, string, _flags(case_insensitive, multiline, dotall)) is not None,)
        except re.error:
            return (False,)


class RegexExtract(_TextNode):
    """Extracts the matches of a pattern from a text."""

    SEARCH_ALIASES = ["regex extract", "regex", "pattern extract", "text parser", "parse text"]
    MODES = ["First Match", "All Matches", "First Group", "All Groups"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "string": _LINES,
                "regex_pattern": _LINES,
                "mode": combo(cls.MODES),
                **_PATTERN_SWITCHES,
                "group_index": whole(1, 0, 100, advanced=True),
            }
        }

    @classmethod
    def execute(
        cls, string: str, regex_pattern: str, mode: str, case_insensitive: bool, multiline: bool, dotall: bool, group_index: int
    ) -> tuple[str]:
        """The first match, all matches or one group of them, one per line; empty text for an invalid pattern."""
        try:
            pattern = re.compile(regex_pattern, _flags(case_insensitive, multiline, dotall))
        except re.error:
            return ("",)
        # with groups, "all matches" returns each match's first group, the first entry of what re.findall returns
        group = group_index if mode.endswith(("Group", "Groups")) else min(1, pattern.groups) if mode == "All Matches" else 0
        if group > pattern.groups or (mode == "All Groups" and not pattern.groups):
            return ("",)
        found = [match.group(group) or "" for match in pattern.finditer(string)]
        return ("\n".join(found if mode.startswith("All") else found[:1]),)


class RegexReplace(_TextNode):
    """Replaces the matches of a pattern."""

    DESCRIPTION = "Replaces what a regular expression matches."
    SEARCH_ALIASES = ["regex replace", "regex", "pattern replace", "substitution"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        switches = {
            **_PATTERN_SWITCHES,
            "dotall": boolean(False, advanced=True, tooltip="Whether a dot also matches a line break."),
            "count": whole(0, 0, 100, advanced=True, tooltip="How many matches are replaced; 0: all."),
        }
        return {"required": {"string": _LINES, "regex_pattern": _LINES, "replace": _LINES}, "optional": switches}

    @classmethod
    def execute(
        cls,
        string: str,
        regex_pattern: str,
        replace: str,
        case_insensitive: bool = True,
        multiline: bool = False,
        dotall: bool = False,
        count: int = 0,
    ) -> tuple[str]:
        """The changed text; *replace* may name groups. Raises ``re.error`` for an invalid pattern."""
        return (re.sub(regex_pattern, replace, string, count=count, flags=_flags(case_insensitive, multiline, dotall)),)


class JsonExtractString(_TextNode):
    """Extracts one entry from a JSON object."""

    SEARCH_ALIASES = ["json", "extract json", "parse json", "json value", "read json"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"json_string": _LINES, "key": text(multiline=False)}}

    @classmethod
    def execute(cls, json_string: str, key: str) -> tuple[str]:
        """The entry as text; empty text when the entry is missing or null, or *json_string* is not a JSON object."""
        try:
            entries = json.loads(json_string)
        except (ValueError, TypeError, RecursionError):
            entries = None
        value = entries.get(key) if isinstance(entries, dict) else None
        return ("" if value is None else str(value),)


_INDENT = whole(2, 0, 8, tooltip="Spaces per level; 0 writes everything in one line.")


class ConvertDictionaryToString(_TextNode):
    """Writes a dictionary as JSON."""

    SEARCH_ALIASES = ["json", "dict to json", "stringify", "serialize", "dict to string"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"dictionary": socket("DICT"), "indent": _INDENT}}

    @classmethod
    def execute(cls, dictionary: Any, indent: int = 2) -> tuple[str]:
        """The JSON text."""
        return (json.dumps(dictionary, ensure_ascii=False, indent=indent or None),)


class ConvertArrayToString(_TextNode):
    """Writes an array as JSON."""

    SEARCH_ALIASES = ["json", "list to json", "stringify", "serialize", "list to string", "array to json"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"array": socket("ARRAY"), "indent": _INDENT}}

    @classmethod
    def execute(cls, array: Any, indent: int = 2) -> tuple[str]:
        """The JSON text."""
        return (json.dumps(array, ensure_ascii=False, indent=indent or None),)


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        CaseConverter,
        ConvertArrayToString,
        ConvertDictionaryToString,
        JsonExtractString,
        RegexExtract,
        RegexMatch,
        RegexReplace,
        StringCompare,
        StringConcatenate,
        StringContains,
        StringFormat,
        StringLength,
        StringReplace,
        StringSubstring,
        StringTrim,
    )
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "StringFormat": "Format Text",
    "StringConcatenate": "Concatenate Text",
    "StringSubstring": "Substring",
    "StringLength": "Text Length",
    "CaseConverter": "Convert Text Case",
    "StringTrim": "Trim Text",
    "StringReplace": "Replace Text",
    "StringContains": "Contains Text",
    "StringCompare": "Compare Text",
    "RegexMatch": "Match Text",
    "RegexExtract": "Extract Text",
    "RegexReplace": "Replace Text (Regex)",
    "JsonExtractString": "Extract Text from JSON",
    "ConvertDictionaryToString": "Convert Dictionary to String",
    "ConvertArrayToString": "Convert Array to String",
}
