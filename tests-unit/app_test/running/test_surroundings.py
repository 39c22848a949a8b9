"""What the executor tells the program around it of nodes that have run."""

from types import SimpleNamespace

import pytest
from torch import nn

import app.running.surroundings as surroundings
from comfy.model_patcher import ModelPatcher
from nodes import NODE_CLASS_MAPPINGS


class PackNode:
    """Of a pack: its module is none of the core's."""


class Manager:
    def __init__(self, sent):
        self.sent, self.distrusted = sent, []

    def has_sent(self):
        return self.sent

    def distrust(self, patchers):
        self.distrusted.append(patchers)


def told(monkeypatch, class_def, inputs, sent=True):
    manager = Manager(sent)
    models = SimpleNamespace(has_manager=lambda: True)
    monkeypatch.setattr(surroundings, "model_management", SimpleNamespace(process_models=lambda: models, manager=lambda: manager))
    surroundings.ServerSurroundings().called(class_def, inputs)
    return manager.distrusted


@pytest.fixture
def patcher():
    return ModelPatcher(nn.Linear(1, 1), "cpu", "cpu")


def test_what_was_sent_of_a_model_is_not_trusted_after_a_packs_node_had_it(monkeypatch, patcher):
    assert told(monkeypatch, PackNode, {"model": [patcher], "strength": [1.0]}) == [[patcher]]
    assert told(monkeypatch, PackNode, {"pipe": [("positive", {"model": patcher})]}) == [[patcher]]
    assert told(monkeypatch, PackNode, {"words": ["a"]}) == [[]]
    assert told(monkeypatch, PackNode, None) == [None]


def test_nodes_of_the_core_write_into_no_weights(monkeypatch, patcher):
    assert told(monkeypatch, NODE_CLASS_MAPPINGS["KSampler"], {"model": [patcher]}) == []


def test_nothing_is_looked_at_where_nothing_was_sent(monkeypatch, patcher):
    assert told(monkeypatch, PackNode, {"model": [patcher]}, sent=False) == []
