"""Weights changed for good are noticed; what may change is not."""

import gc

import pytest

torch = pytest.importorskip("torch")

from comfy.ram_model_cache_hooks.tripwire import Tripwire  # noqa: E402


class Patcher:
    def __init__(self, model):
        self.model = model


@pytest.fixture
def patcher():
    module = torch.nn.Sequential(torch.nn.Linear(8, 40), torch.nn.Linear(40, 3, dtype=torch.float16))
    module.register_parameter("scale", torch.nn.Parameter(torch.tensor(2.0)))
    module.register_parameter("none", torch.nn.Parameter(torch.empty(0)))
    module.register_buffer("table", torch.zeros(4))
    return Patcher(module)


def test_untouched_weights_and_changed_buffers_pass(patcher):
    tripwire = Tripwire()
    tripwire.check(patcher)
    tripwire.note(patcher)
    patcher.model.table = torch.ones(9)
    patcher.model[0].weight.data = patcher.model[0].weight.data.clone()
    tripwire.check(patcher)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.half(),
        lambda model: model[1].weight.data.add_(1),
        lambda model: model.scale.data.mul_(3),
        lambda model: model[0].bias.data.zero_(),
    ],
    ids=["half", "merged", "scalar", "bias"],
)
def test_weights_changed_in_place_are_noticed(patcher, change):
    tripwire = Tripwire()
    tripwire.note(patcher)
    change(patcher.model)
    with pytest.raises(RuntimeError, match="changed in place"):
        tripwire.check(patcher)


def test_weights_that_are_on_a_device_are_not_looked_at(patcher):
    tripwire = Tripwire()
    tripwire.note(patcher)
    patcher.model.to("meta")
    tripwire.check(patcher)


def test_samples_go_with_their_patcher(patcher):
    tripwire = Tripwire()
    other = Patcher(torch.nn.Linear(2, 2))
    tripwire.note(other)
    assert len(tripwire._samples) == 1
    del other
    gc.collect()
    assert len(tripwire._samples) == 0
