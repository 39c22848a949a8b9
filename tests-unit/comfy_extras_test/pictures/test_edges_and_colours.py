"""Canny, Transfer Color and Crop Image to Mask."""

import pytest
import torch

from comfy_extras import colour_matching, colours
from comfy_extras.colour_transfer_node import ColorTransfer
from comfy_extras.mask_crop_node import ImageCropToMask
from comfy_extras.nodes_canny import Canny, canny_edges


def halves(left=0.0, right=1.0, size=16):
    image = torch.full((1, size, size, 3), left)
    image[:, :, size // 2 :] = right
    return image


def test_a_step_is_one_line_of_edges():
    edges = Canny.execute(halves(), 0.4, 0.8).args[0]
    assert edges.shape == (1, 16, 16, 3) and set(edges.unique().tolist()) == {0.0, 1.0}
    assert edges[0, :, :, 0].sum(dim=0).nonzero().ravel().tolist() == [7], "of two equal columns the left one"


@pytest.mark.parametrize(("step", "found"), [(0.12, False), (0.25, False), (0.4, True)])
def test_thresholds_are_compared_with_magnitudes(step, found):
    assert bool(canny_edges(halves(0.0, step), 0.4, 0.8).any()) is found


def test_weak_edges_stay_where_they_touch_strong_ones():
    image = halves()
    image[:, :, 8:] *= torch.linspace(0.16, 0.28, 16).view(1, 16, 1, 1)
    assert not canny_edges(image, 0.4, 0.8).any()
    image[:, :, 8:] *= 1.5
    edges = canny_edges(image, 0.4, 0.8)
    assert edges[0, 0].any(dim=1).all(), "the upper part, fainter than 0.8, hangs on the lower one"
    assert not canny_edges(image[:, :4], 0.4, 0.8).any(), "by itself it is none"


def test_grey_images_and_wrong_thresholds():
    assert torch.equal(canny_edges(halves()[..., :1], 0.4, 0.8), canny_edges(halves(), 0.4, 0.8))
    with pytest.raises(ValueError, match="low_threshold"):
        Canny.execute(halves(), 0.9, 0.2)


def test_lab_has_known_values_and_comes_back():
    known = colour_matching.rgb_to_lab(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]))
    assert known[:, 0].tolist() == pytest.approx([100.0, 0.0, 0.0], abs=0.02)
    assert known[:, 1].tolist() == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert known[:, 2].tolist() == pytest.approx([32.30, 79.19, -107.86], abs=0.02)
    some = torch.rand(3, 50)
    assert torch.allclose(colour_matching.lab_to_rgb(colour_matching.rgb_to_lab(some)), some, atol=1e-5)


def statistics(image, method):
    frames = [colour_matching.rgb_to_lab(one.reshape(-1, 3).T) for one in image]
    return colour_matching.reinhard_statistics(frames) if method == "reinhard_lab" else colour_matching.mkl_statistics(frames)


def muted(*shape, seed):
    return 0.35 + 0.2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ["reinhard_lab", "mkl_lab"])
@pytest.mark.parametrize("mode", ["per_frame", "uniform", "target_frame"])
def test_the_result_has_the_references_statistics(method, mode):
    target, reference = muted(2, 8, 8, 3, seed=1), muted(1, 6, 6, 3, seed=2)
    target[1] += 0.05
    result = ColorTransfer.execute(target, reference, method, {"source_stats": mode, "target_index": 1}).args[0]
    compared = {"per_frame": result[:1], "uniform": result, "target_frame": result[1:]}[mode]
    for own, wanted in zip(statistics(compared, method), statistics(reference, method)):
        assert torch.allclose(own, wanted, atol=0.05, rtol=0.02)


def test_histograms_are_matched():
    target, reference = muted(1, 32, 32, 3, seed=3), torch.rand((1, 32, 32, 3), generator=torch.Generator().manual_seed(4)) ** 2
    result = ColorTransfer.execute(target, reference, "histogram", {"source_stats": "per_frame"}).args[0]
    for share in (0.1, 0.5, 0.9):
        own, wanted = (image.reshape(-1, 3).quantile(share, dim=0) for image in (result, reference))
        assert torch.allclose(own, wanted, atol=0.06)


def test_strength_and_what_cannot_be_matched():
    target, reference = muted(1, 4, 4, 3, seed=1), muted(1, 4, 4, 3, seed=2)
    per_frame = {"source_stats": "per_frame"}
    assert ColorTransfer.execute(target, reference, "mkl_lab", per_frame, 0.0).args[0] is target
    half, full = (ColorTransfer.execute(target, reference, "histogram", per_frame, strength).args[0] for strength in (0.5, 1.0))
    assert torch.allclose(half, (target + full) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="3 channels"):
        ColorTransfer.execute(torch.rand(1, 4, 4, 4), reference, "mkl_lab", per_frame)


def spotted():
    """A white square of 24 pixels in a grey picture, and its mask."""
    image, mask = torch.full((1, 64, 64, 3), 0.5), torch.zeros(1, 64, 64)
    image[:, 20:44, 20:44], mask[:, 20:44, 20:44] = 1.0, 1.0
    return image, mask


@pytest.mark.parametrize("inverted", [False, True])
def test_the_subject_fills_the_result(inverted):
    image, mask = spotted()
    result = ImageCropToMask.execute(image, 1 - mask if inverted else mask, 64, 64, 1.0, 0, "#ff0000").args[0]
    assert result.shape == (1, 64, 64, 3) and result[0, 20:44, 20:44].min() > 0.9
    assert ImageCropToMask.execute(image, mask, 64, 128, 1.0, 0, "#000000").args[0].shape == (1, 128, 64, 3)


def test_what_lies_outside_has_the_background():
    image, mask = spotted()
    result = ImageCropToMask.execute(image, mask, 64, 64, 2.0, 0, "#ff0000").args[0]
    assert result[0, 2, 2].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=0.01)
    grown = ImageCropToMask.execute(image, mask, 64, 64, 2.0, 3, "#ff0000").args[0]
    assert grown[0, 17, 32].tolist() == pytest.approx([0.5, 0.5, 0.5], abs=0.05)


def test_an_empty_mask_cuts_nothing_away(caplog):
    image, _ = spotted()
    result = ImageCropToMask.execute(image, torch.full((1, 64, 64), 0.5), 64, 64, 1.0, 0, "#000000").args[0]
    assert torch.allclose(result, image * 0.5, atol=0.01) and "mask is empty" in caplog.text
    with pytest.raises(ValueError, match="does not match"):
        ImageCropToMask.execute(image, torch.zeros(3, 64, 64), 64, 64, 1.0, 0, "#000000")


def test_colours_are_read_as_the_page_writes_them():
    assert colours.rgb_levels("#102030") == (16, 32, 48) and colours.rgb_levels("no") == (255, 255, 255)
    assert colours.rgb_fractions("ff0000") == (1.0, 0.0, 0.0) and colours.rgb_fractions("#ff") == (0.0, 0.0, 0.0)
    assert colours.readable((0, 0, 0)) == (130, 130, 130) and colours.readable((255, 255, 255)) == (255, 255, 255)
