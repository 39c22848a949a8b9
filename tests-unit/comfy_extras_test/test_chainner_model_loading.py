"""The old import place of upscaling models: it passes weights to spandrel and says when that is missing."""

import sys
from types import SimpleNamespace

import pytest

from comfy_extras.chainner_models import model_loading


class Loaded:
    """A loaded model that knows whether it was switched to evaluation."""

    def __init__(self, state_dict):
        self.state_dict, self.evaluating = state_dict, False

    def eval(self):
        self.evaluating = True
        return self


def test_weights_go_through_spandrel(monkeypatch):
    loader = SimpleNamespace(load_from_state_dict=Loaded)
    monkeypatch.setattr(model_loading, "spandrel", SimpleNamespace(ModelLoader=lambda: loader))
    model = model_loading.load_state_dict({"a": 1})
    assert model.state_dict == {"a": 1} and model.evaluating


def test_missing_spandrel_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.setattr(model_loading, "spandrel", model_loading.lazy_module("spandrel"))
    with pytest.raises(RuntimeError, match="spandrel package"):
        model_loading.load_state_dict({})
