"""Attention masks for another size of the picture: the text's share stays, the picture's is interpolated."""

import pytest
import torch

import comfy.utils
from comfy.images.token_masks import upscale_dit_mask


def test_a_mask_grows_with_the_picture():
    words, weights = 2, torch.tensor([[1.0, 3.0]])  # one row of two tokens
    mask = torch.full((4, 4), 5.0)
    mask[:2, 2:] = weights
    mask[2:, :2] = weights.T * 10
    mask[2:, 2:] = 7.0
    grown = upscale_dit_mask(mask, (1, 2), (2, 4))
    expected = torch.tensor([1.0, 1.5, 2.5, 3.0, 1.0, 1.5, 2.5, 3.0])
    assert grown.shape == (1, 10, 10) and torch.equal(grown[0, :words, :words], torch.full((2, 2), 5.0))
    assert torch.equal(grown[0, 0, words:], expected) and torch.equal(grown[0, words:, 1], expected * 10)
    assert torch.equal(grown[0, words:, words:], torch.full((8, 8), 7.0))


def test_equal_sizes_change_nothing_and_other_shapes_are_refused():
    mask = torch.zeros(1, 5, 5)
    assert comfy.utils.upscale_dit_mask(mask, (2, 2), (2, 2)) is mask
    with pytest.raises(ValueError, match=r"this one is \[5\]"):
        upscale_dit_mask(torch.zeros(5), (1, 1), (2, 2))
