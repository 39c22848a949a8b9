"""Memory of an old patched value is filled again only while nothing else looks into it."""

import pytest
import torch

from comfy.patching.on_host.filling import OnHost
from comfy.patching.on_host.freed_memory import FreedMemory
from comfy.patching.on_host.row_blocks import in_row_blocks
from comfy.weight_adapter.lora import LoRAAdapter

SHAPE = (6, 4)


def parameter():
    return torch.nn.Parameter(torch.randn(SHAPE), requires_grad=False)


def test_memory_that_nobody_uses_is_taken_once():
    value = parameter()
    address, freed = value.data_ptr(), FreedMemory(value)
    del value
    taken = freed.take(SHAPE, torch.float32)
    assert taken.data_ptr() == address and taken.shape == SHAPE and taken.is_contiguous()
    assert freed.take(SHAPE, torch.float32) is None
    assert taken.fill_(3).sum() == 72


def test_half_as_many_wider_elements_fit_too():
    freed = FreedMemory(torch.zeros(SHAPE, dtype=torch.float16))
    assert freed.take((3, 4), torch.float32).shape == (3, 4)


@pytest.mark.parametrize(
    "look",
    [lambda value: value, lambda value: value.detach(), lambda value: value.data[1:], lambda value: value.detach().numpy()],
    ids=["itself", "a view", "a part", "NumPy"],
)
def test_memory_in_use_is_left_alone(look):
    value = parameter()
    seen, expected = look(value), look(value.detach().clone())
    freed = FreedMemory(value)
    del value
    assert freed.take(SHAPE, torch.float32) is None
    assert (seen == expected).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(8, 4)[:6],
        lambda: torch.zeros(5, 4),
        lambda: torch.zeros(SHAPE, device="meta"),
        lambda: torch.zeros(SHAPE).share_memory_(),
    ],
    ids=["a part", "smaller", "meta", "shared"],
)
def test_memory_of_another_size_or_kind_is_not_taken(make):
    freed = FreedMemory(make())
    assert freed.take(SHAPE, torch.float32) is None


def test_without_a_count_of_users_nothing_is_taken(monkeypatch):
    monkeypatch.setattr("comfy.patching.on_host.freed_memory._use_count", None)
    freed = FreedMemory(torch.zeros(SHAPE))
    assert freed.take(SHAPE, torch.float32) is None


def test_the_new_value_lies_where_the_old_one_was_and_is_the_same():
    weight = torch.randn(SHAPE)
    patches = [(0.7, LoRAAdapter(set(), (torch.randn(6, 2), torch.randn(2, 4), 2.0, None, None, None)), 1.0, None, None)]
    expected = in_row_blocks(patches, weight, torch.float32, torch.float32)
    old = torch.full(SHAPE, torch.nan)
    address, freed = old.data_ptr(), FreedMemory(old)
    del old
    found = in_row_blocks(patches, weight, torch.float32, torch.float32, OnHost(freed))
    assert found.data_ptr() == address and found.equal(expected)
