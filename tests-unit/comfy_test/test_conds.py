"""Conditioning values: repeating, cutting, comparing, joining."""

import torch

from comfy.conds import CONDConstant, CONDCrossAttn, CONDList, CONDNoiseShape, CONDRegular, is_equal


def test_tensors_are_repeated_and_joined_along_the_batch():
    one = CONDRegular(torch.ones(1, 3))
    assert one.process_cond(4).cond.shape == (4, 3) and one.size() == [1, 3]
    assert one.can_concat(CONDRegular(torch.zeros(1, 3))) and not one.can_concat(CONDRegular(torch.zeros(1, 4)))
    assert one.concat([CONDRegular(torch.zeros(2, 3))]).shape == (3, 3)


def test_values_over_the_latent_are_cut_like_it():
    picture = torch.arange(36.0).view(1, 1, 6, 6)
    cut = CONDNoiseShape(picture).process_cond(2, area=(2, 3, 1, 2)).cond
    assert torch.equal(cut, picture[:, :, 1:3, 2:5].expand(2, -1, -1, -1))
    assert CONDNoiseShape(picture).process_cond(1, area=None).cond.shape == picture.shape


def test_contexts_of_different_lengths_are_repeated_to_a_common_one():
    short, longer = CONDCrossAttn(torch.randn(1, 4, 8)), CONDCrossAttn(torch.randn(1, 6, 8))
    assert short.can_concat(longer) and not short.can_concat(CONDCrossAttn(torch.randn(1, 4, 9)))
    joined = short.concat([longer])
    assert joined.shape == (2, 12, 8) and torch.equal(joined[0], short.cond[0].repeat(3, 1))
    assert not CONDCrossAttn(torch.randn(1, 7, 8)).can_concat(CONDCrossAttn(torch.randn(1, 5, 8)))


def test_constants_are_shared_when_equal():
    value = CONDConstant({"a": [torch.ones(2), 1]})
    assert value.can_concat(CONDConstant({"a": [torch.ones(2), 1]})) and not value.can_concat(CONDConstant({"a": [torch.ones(2), 2]}))
    assert value.process_cond(3).cond is value.cond and value.concat([]) is value.cond and value.size() == [1]


def test_lists_are_joined_item_by_item():
    first, second = CONDList([torch.ones(1, 2), torch.ones(1, 3, 4)]), CONDList([torch.zeros(1, 2), torch.zeros(1, 3, 4)])
    assert first.can_concat(second) and not first.can_concat(CONDList([torch.ones(1, 2)]))
    assert [tensor.shape[0] for tensor in first.concat([second])] == [2, 2]
    assert [tensor.shape[0] for tensor in first.process_cond(3).cond] == [3, 3] and first.size() == [1, 3, 4]


def test_comparing_never_fails(caplog):
    class Odd:
        def __eq__(self, other):
            raise ValueError("no")

        __hash__ = None

    assert not is_equal(Odd(), Odd()) and "separate batches" in caplog.text
    assert is_equal((1, [2]), (1, [2])) and not is_equal([1], (1,)) and not is_equal({"a": 1}, {"b": 1})
