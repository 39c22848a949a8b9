"""Where the core finds the node classes."""

import pytest

from comfy_execution.nodes_graph.registered_classes import ClassSource, class_source, node_class, registered_classes


def test_before_anybody_provided_a_table_the_error_says_what_to_import():
    with pytest.raises(RuntimeError, match="import the module `nodes`"):
        ClassSource().table()


def test_the_table_is_asked_for_at_each_look_up(monkeypatch):
    tables = iter([{"A": int}, {"A": str}])
    monkeypatch.setattr(class_source, "_classes", lambda: next(tables))
    assert registered_classes() == {"A": int} and node_class("A") is str


def test_an_unknown_type_is_named(monkeypatch):
    monkeypatch.setattr(class_source, "_classes", dict)
    with pytest.raises(KeyError, match="no node type 'Absent'; is the pack that provides it installed"):
        node_class("Absent")


def test_a_table_that_a_pack_puts_into_nodes_is_seen(monkeypatch):
    nodes = pytest.importorskip("nodes")
    monkeypatch.setattr(class_source, "_classes", class_source._classes)
    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", {"OnlyOne": int})
    assert registered_classes() == {"OnlyOne": int}
