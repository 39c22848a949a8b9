"""Nodes that make and reshape images, and the ones that regroup batches."""

import pytest
import torch

from comfy_extras.core_images import EmptyImage, ImageBatch, ImageInvert, ImagePadForOutpaint, ImageScale, ImageScaleBy
from comfy_extras.nodes_rebatch import ImageRebatch, LatentRebatch


def test_side_of_zero_follows_the_aspect_ratio():
    image = torch.rand(1, 20, 40, 3)
    assert ImageScale().upscale(image, "bilinear", 0, 10, "disabled")[0].shape == (1, 10, 20, 3)
    assert ImageScale().upscale(image, "bilinear", 10, 0, "disabled")[0].shape == (1, 5, 10, 3)
    assert ImageScale().upscale(image, "bilinear", 0, 0, "disabled")[0] is image


def test_scale_by_rounds_both_sides():
    assert ImageScaleBy().upscale(torch.rand(2, 5, 7, 3), "area", 1.5)[0].shape == (2, 8, 10, 3)


def test_inverting_subtracts_from_one():
    assert torch.equal(ImageInvert().invert(torch.tensor([0.0, 0.25]))[0], torch.tensor([1.0, 0.75]))


def test_batch_adds_opaque_alpha_and_resizes_the_second():
    (joined,) = ImageBatch().batch(torch.zeros(1, 4, 6, 3), torch.zeros(2, 8, 8, 4))
    assert joined.shape == (3, 4, 6, 4)
    assert joined[0, ..., 3].unique().tolist() == [1.0] and joined[1:, ..., 3].unique().tolist() == [0.0]


def test_empty_image_takes_red_from_the_high_byte():
    (image,) = EmptyImage().generate(2, 3, 4, 0xFF8000)
    assert image.shape == (4, 3, 2, 3)
    assert image[0, 0, 0].tolist() == pytest.approx([1.0, 128 / 255, 0.0])


def test_padding_is_grey_and_the_mask_fades_only_from_padded_sides():
    image = torch.zeros(1, 20, 20, 3)
    padded, mask = ImagePadForOutpaint().expand_image(image, left=8, top=0, right=0, bottom=0, feathering=4)
    assert padded.shape == (1, 20, 28, 3) and mask.shape == (1, 20, 28)
    assert padded[0, 0, 0].tolist() == [0.5] * 3 and padded[0, 0, 8].tolist() == [0.0] * 3
    assert mask[0, 10, 7:13].tolist() == [1.0, 1.0, 0.5625, 0.25, 0.0625, 0.0]
    assert mask[0, 0, 27] == 0.0


def test_images_are_regrouped_over_the_list():
    (batches,) = ImageRebatch.rebatch([torch.rand(3, 2, 2, 3), torch.rand(2, 2, 2, 3)], [2])
    assert [batch.shape[0] for batch in batches] == [2, 2, 1]


def test_latents_of_other_sizes_start_a_new_batch_and_indices_count_on():
    small, large = {"samples": torch.zeros(3, 4, 8, 8)}, {"samples": torch.zeros(1, 4, 8, 16)}
    (batches,) = LatentRebatch.rebatch([small, small, large], [4])
    assert [batch["samples"].shape[0] for batch in batches] == [4, 2, 1]
    assert [batch["batch_index"] for batch in batches] == [[0, 1, 2, 3], [4, 5], [6]]
    assert all("noise_mask" not in batch for batch in batches)


def test_noise_mask_is_kept_where_it_says_something():
    masked = {"samples": torch.zeros(2, 4, 8, 8), "noise_mask": torch.zeros(1, 1, 64, 64), "batch_index": [5, 6]}
    (batches,) = LatentRebatch.rebatch([masked], [1])
    assert [batch["noise_mask"].shape for batch in batches] == [(1, 1, 64, 64)] * 2
    assert [batch["batch_index"] for batch in batches] == [[5], [6]]
