"""Mask nodes and pasting with masks."""

import numpy
import pytest
import scipy.ndimage
import torch

import folder_paths
from comfy_extras.nodes_mask import (
    CropMask,
    FeatherMask,
    GrowMask,
    ImageColorToMask,
    ImageCompositeMasked,
    ImageToMask,
    InvertMask,
    LatentCompositeMasked,
    MaskComposite,
    MaskPreview,
    MaskToImage,
    SolidMask,
    ThresholdMask,
    composite,
)


def test_pasting_mixes_by_the_mask_and_cuts_what_sticks_out():
    target, source = torch.zeros(2, 1, 4, 4), torch.full((1, 1, 2, 2), 8.0)
    pasted = composite(target, source, 3, 3, torch.full((2, 2), 0.25), multiplier=1)
    assert pasted is target
    assert pasted[1, 0].nonzero().tolist() == [[3, 3]] and pasted[1, 0, 3, 3] == 2.0


def test_pasting_at_a_negative_position_shows_the_far_part():
    source = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    pasted = composite(torch.zeros(1, 1, 4, 4), source, -2, -1, multiplier=1)
    assert pasted[0, 0, :2, 0].tolist() == [6, 9] and pasted.count_nonzero() == 2


@pytest.mark.parametrize("x, y", [(400, 0), (0, 400), (-400, 0)])
def test_pasting_beside_the_picture_changes_nothing(x, y):
    assert not composite(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 2, 2), x, y, multiplier=1).any()


def test_image_paste_adds_the_missing_alpha_and_stretches_on_demand():
    (pasted,) = ImageCompositeMasked.execute(torch.zeros(1, 4, 4, 4), torch.ones(1, 2, 2, 3), 0, 0, resize_source=True)
    assert pasted.shape == (1, 4, 4, 4) and pasted.min() == 1.0


def test_latent_paste_counts_in_pixels_and_keeps_other_entries():
    latent = {"samples": torch.zeros(1, 4, 4, 4), "batch_index": [3]}
    (pasted,) = LatentCompositeMasked.execute(latent, {"samples": torch.ones(1, 4, 1, 1)}, 16, 8, False)
    assert pasted["samples"][0, 0].nonzero().tolist() == [[1, 2]] and pasted["batch_index"] == [3]
    assert not latent["samples"].any()


def test_masks_and_images_turn_into_each_other():
    mask = torch.rand(2, 3, 4)
    (image,) = MaskToImage.execute(mask)
    assert image.shape == (2, 3, 4, 3)
    assert torch.equal(ImageToMask.execute(image, "blue")[0], mask)
    with pytest.raises(IndexError, match="no 'alpha'"):
        ImageToMask.execute(image, "alpha")


def test_one_colour_is_marked():
    image = torch.tensor([[[[1.0, 0.0, 0.501], [1.0, 0.0, 0.51]]]])
    assert ImageColorToMask.execute(image, 0xFF0080)[0].tolist() == [[[1.0, 0.0]]]


def test_solid_inverted_cropped_and_thresholded():
    (mask,) = SolidMask.execute(0.25, 4, 3)
    assert mask.shape == (1, 3, 4) and InvertMask.execute(mask)[0].unique().tolist() == [0.75]
    assert CropMask.execute(mask[0], 3, 1, 10, 10)[0].shape == (1, 2, 1)
    assert ThresholdMask.execute(mask, 0.25)[0].unique().tolist() == [0.0]


@pytest.mark.parametrize(
    "operation, expected", [("multiply", 0.24), ("add", 1.0), ("subtract", 0.2), ("and", 0.0), ("or", 1.0), ("xor", 1.0)]
)
def test_masks_are_combined_where_they_meet(operation, expected):
    (combined,) = MaskComposite.execute(torch.full((1, 3, 3), 0.6), torch.full((2, 2), 0.4), 2, 2, operation)
    assert combined[0, 2, 2].item() == pytest.approx(expected) and combined[0, 0, 0].item() == pytest.approx(0.6)


def test_feather_falls_towards_each_side():
    (faded,) = FeatherMask.execute(torch.ones(1, 1, 6), left=2, top=0, right=4, bottom=0)
    assert faded.flatten().tolist() == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("tapered", [True, False])
@pytest.mark.parametrize("expand", [0, 1, 3, -2, 16384])
def test_growing_equals_repeated_grey_morphology(tapered, expand):
    mask = torch.from_numpy(numpy.random.default_rng(1).random((2, 9, 12)).astype(numpy.float32))
    footprint = numpy.array([[not tapered, 1, not tapered], [1, 1, 1], [not tapered, 1, not tapered]])
    step = scipy.ndimage.grey_erosion if expand < 0 else scipy.ndimage.grey_dilation
    expected = mask.numpy()
    for _ in range(min(abs(expand), 40)):
        expected = numpy.stack([step(plane, footprint=footprint) for plane in expected])
    assert numpy.array_equal(GrowMask.execute(mask, expand, tapered)[0].numpy(), expected)


def test_preview_writes_grey_pictures_and_passes_the_mask_on(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    mask = torch.rand(2, 4, 4)
    answer = MaskPreview().preview(mask)
    assert answer["result"] == (mask,) and answer["ui"]["animated"] == (False,)
    assert all((tmp_path / entry["filename"]).is_file() and entry["type"] == "temp" for entry in answer["ui"]["images"])
