"""Blending, filters, quantization, resizing and batches."""

import pytest
import torch

from comfy_extras import nodes_post_processing as nodes
from comfy_extras.image_quantizing import bayer_matrix


def plain(value, *size):
    return torch.full((1, *(size or (4, 4)), 3), float(value))


@pytest.mark.parametrize(
    "mode, expected",
    [("normal", 0.5), ("multiply", 0.125), ("screen", 0.625), ("overlay", 0.25), ("soft_light", 0.25), ("difference", 0.0)],
)
def test_blend_modes(mode, expected):
    assert nodes.Blend.execute(plain(0.25), plain(0.5), 1.0, mode)[0].unique().tolist() == pytest.approx([expected])


def test_blend_takes_size_and_channels_of_the_first():
    (blended,) = nodes.Blend.execute(torch.zeros(2, 4, 6, 4), torch.ones(1, 8, 8, 3).expand(2, -1, -1, -1), 0.5, "normal")
    assert blended.shape == (2, 4, 6, 4) and torch.allclose(blended, torch.tensor(0.5))


def test_blur_and_sharpen_leave_plain_pictures_alone():
    for radius in (0, 1, 3):
        assert torch.allclose(nodes.Blur.execute(plain(0.3), radius, 1.0)[0], plain(0.3), atol=1e-6)
        assert torch.allclose(nodes.Sharpen.execute(plain(0.3), radius, 1.0, 1.0)[0], plain(0.3), atol=1e-5)
    dot = torch.zeros(1, 9, 9, 1)
    dot[0, 4, 4] = 1.0
    (blurred,) = nodes.Blur.execute(dot, 1, 1.0)
    assert blurred.count_nonzero() == 9 and torch.allclose(blurred.sum(), torch.tensor(1.0))
    with pytest.raises(ValueError, match="radius of 31"):
        nodes.Blur.execute(plain(0.3), 31, 1.0)


@pytest.mark.parametrize("dither", ["none", "floyd-steinberg", "bayer-2", "bayer-16"])
def test_quantized_pictures_have_few_colours(dither):
    image = torch.rand(2, 16, 16, 3)
    (reduced,) = nodes.Quantize.execute(image, 4, dither)
    assert reduced.shape == image.shape and not torch.equal(reduced, image)
    assert all(frame.reshape(-1, 3).unique(dim=0).shape[0] <= 4 for frame in reduced)


def test_quantizing_keeps_alpha_and_thresholds_are_spread_evenly():
    image = torch.rand(1, 8, 8, 4)
    assert torch.equal(nodes.Quantize.execute(image, 2, "none")[0][..., 3], image[..., 3])
    steps = sorted(bayer_matrix(4).flatten().tolist())
    assert len(set(steps)) == 16 and steps[0] == -steps[-1]


def test_total_pixels_in_steps():
    assert nodes.ImageScaleToTotalPixels.execute(torch.rand(1, 20, 40, 3), "area", 0.01, 8)[0].shape == (1, 72, 144, 3)


@pytest.mark.parametrize(
    "how, size",
    [
        ({"resize_type": "scale dimensions", "width": 0, "height": 10, "crop": "center"}, (10, 20)),
        ({"resize_type": "scale dimensions", "width": 7, "height": 9, "crop": "disabled"}, (9, 7)),
        ({"resize_type": "scale by multiplier", "multiplier": 0.5}, (10, 20)),
        ({"resize_type": "scale longer dimension", "longer_size": 10}, (5, 10)),
        ({"resize_type": "scale shorter dimension", "shorter_size": 10}, (10, 20)),
        ({"resize_type": "scale width", "width": 80}, (40, 80)),
        ({"resize_type": "scale height", "height": 40}, (40, 80)),
        ({"resize_type": "scale total pixels", "megapixels": 0.01}, (72, 145)),
        ({"resize_type": "match size", "match": torch.rand(1, 6, 7), "crop": "center"}, (6, 7)),
        ({"resize_type": "scale to multiple", "multiple": 16}, (16, 32)),
        ({"resize_type": "scale to multiple", "multiple": 64}, (20, 40)),
    ],
)
def test_ways_to_resize_images_and_masks(how, size):
    for values in (torch.rand(2, 20, 40, 3), torch.rand(2, 20, 40)):
        resized = nodes.ResizeImageMaskNode.execute(values, "area", how).args[0]
        assert resized.ndim == values.ndim and tuple(resized.shape[1:3]) == size


def test_batches_of_any_number():
    images = nodes.BatchImagesNode.execute({"image0": plain(0), "image1": torch.ones(2, 8, 8, 4)}).args[0]
    assert images.shape == (3, 4, 4, 4)
    masks = nodes.BatchMasksNode.execute({"mask0": torch.rand(1, 4, 4), "mask1": torch.rand(2, 8, 6)}).args[0]
    assert masks.shape == (3, 4, 4)
    latents = [{"samples": torch.rand(1, 4, 8, 8)}, {"samples": torch.rand(2, 4, 4, 4), "batch_index": [5, 6]}]
    joined = nodes.BatchLatentsNode.execute(dict(zip(("latent0", "latent1"), latents))).args[0]
    assert joined["samples"].shape == (3, 4, 8, 8) and joined["batch_index"] == [0, 5, 6]
    assert "batch_index" not in latents[0]
