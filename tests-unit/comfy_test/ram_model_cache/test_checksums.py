"""Weights changed for good are noticed; what may change is not."""

import gc

import pytest

torch = pytest.importorskip("torch")

from comfy.ram_model_cache.checksums import WeightChecksums, WeightsChanged, checksum  # noqa: E402


class Patcher:
    def __init__(self, model):
        self.model = model


def weights_of(patcher):
    """Those on a device cannot be looked at."""
    return ((name, None if weight.device.type == "meta" else weight) for name, weight in patcher.model.named_parameters())


@pytest.fixture
def patcher():
    module = torch.nn.Sequential(torch.nn.Linear(8, 40), torch.nn.Linear(40, 3, dtype=torch.float16))
    module.register_parameter("scale", torch.nn.Parameter(torch.tensor(2.0)))
    module.register_parameter("none", torch.nn.Parameter(torch.empty(0)))
    module.register_buffer("table", torch.zeros(4))
    return Patcher(module)


def test_untouched_weights_and_changed_buffers_pass(patcher):
    checksums = WeightChecksums(weights_of)
    checksums.check(patcher)
    checksums.note(patcher)
    patcher.model.table = torch.ones(9)
    patcher.model[0].weight.data = patcher.model[0].weight.data.clone()
    checksums.check(patcher)


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
    checksums = WeightChecksums(weights_of)
    checksums.note(patcher)
    change(patcher.model)
    with pytest.raises(WeightsChanged, match="weights in place"):
        checksums.check(patcher)


def test_weights_that_are_on_a_device_are_not_looked_at(patcher):
    checksums = WeightChecksums(weights_of)
    checksums.note(patcher)
    patcher.model.to("meta")
    checksums.check(patcher)


def test_samples_go_with_their_patcher(patcher):
    checksums = WeightChecksums(weights_of)
    other = Patcher(torch.nn.Linear(2, 2))
    checksums.note(other)
    assert len(checksums._sums) == 1
    del other
    gc.collect()
    assert len(checksums._sums) == 0


def test_weights_that_came_or_went_are_noticed(patcher):
    checksums = WeightChecksums(weights_of)
    checksums.note(patcher)
    patcher.model.register_parameter("new", torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(WeightsChanged, match="first new"):
        checksums.check(patcher)


def test_both_ends_count_and_rows_that_are_not_contiguous_by_their_last_one():
    long = torch.zeros(100_000)
    before = checksum(long)
    for position in (0, -1):
        long[position] = 1
        assert checksum(long) != before
        long[position] = 0
    assert checksum(long) == before != checksum(long.half())
    turned = torch.zeros(30, 40).T
    before = checksum(turned)
    turned[-1, 0] = 1
    assert checksum(turned) != before
