"""Flags that are listed as without effect are read by nothing."""

import ast

from source_tree import sources

from comfy.cli_flags import INERT_FLAGS, build_parser

DECLARED_IN = "comfy/cli_flags.py"  # declares them, and says which exclude each other
HOLDERS = ("args", "_args", "parsed", "settings", "flags")


def reads(tree, names):
    """(line, flag) of each attribute of a namespace, and of each text, that is one of *names*."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value).rpartition(".")[2] in HOLDERS:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and node.value in names:
            yield node.lineno, node.value


def destinations():
    return {action.dest for action in build_parser()._actions if INERT_FLAGS & set(action.option_strings)}


def test_nothing_reads_a_flag_that_is_listed_as_without_effect():
    names = destinations()
    found = [
        f"{source.path}:{line} {name}" for source in sources() for line, name in reads(source.tree, names) if source.path != DECLARED_IN
    ]
    assert not found, f"take these off INERT_FLAGS or do not read them: {found}"


def test_settling_the_flags_reads_none_of_them_as_an_attribute():
    (source,) = [source for source in sources() if source.path == DECLARED_IN]
    attributes = [node for node in ast.walk(source.tree) if isinstance(node, ast.Attribute)]
    assert [node.attr for node in attributes if node.attr in destinations()] == []


def test_a_read_is_found_as_an_attribute_and_as_a_text():
    code = "if self._args.fast_disk or getattr(args, 'high_ram') or other.fast_disk(): pass"
    assert sorted(name for _, name in reads(ast.parse(code), {"fast_disk", "high_ram"})) == ["fast_disk", "high_ram"]


def test_every_listed_flag_is_one_that_the_parser_knows():
    known = {option for action in build_parser()._actions for option in action.option_strings}
    assert known >= INERT_FLAGS


def test_every_other_flag_is_read_by_something():
    every = {action.dest for action in build_parser()._actions if action.option_strings} - {"help"}
    asks_for_defaults = {"cache_classic"}
    read = {
        name
        for source in sources()
        for _, name in reads(settled(source.tree) if source.path == DECLARED_IN else source.tree, every)
        if not (source.path.startswith("comfy/") and source.path.endswith("_flags.py")) or source.path == DECLARED_IN
    }
    assert every - read - destinations() == asks_for_defaults, "list these in INERT_FLAGS, or have them do what they say"


def settled(tree):
    """What makes one flag say something about another."""
    (function,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "settle"]
    return ast.Module([node for node in function.body if isinstance(node, ast.If)], [])
