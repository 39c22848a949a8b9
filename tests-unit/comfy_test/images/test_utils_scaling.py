"""Resizing and tiled processing."""

import numpy
import pytest
import torch
from PIL import Image

from comfy import utils


def test_methods_of_torch_are_passed_on():
    samples = torch.rand(1, 3, 8, 8)
    for method in ("nearest-exact", "bilinear", "area", "bicubic"):
        expected = torch.nn.functional.interpolate(samples, size=(5, 12), mode=method)
        assert torch.equal(utils.common_upscale(samples, 12, 5, method, "disabled"), expected)


@pytest.mark.parametrize("shape, size, kept", [((4, 8), (4, 4), (slice(None), slice(2, 6))), ((8, 4), (4, 4), (slice(2, 6), slice(None)))])
def test_centre_crop_keeps_the_middle(shape, size, kept):
    samples = torch.rand(1, 1, *shape)
    cropped = utils.common_upscale(samples, *size, "nearest-exact", "center")
    assert torch.equal(cropped[0, 0], samples[0, 0][kept])


def test_frames_are_resized_one_by_one():
    video = torch.rand(2, 4, 3, 8, 6)
    resized = utils.common_upscale(video, 12, 4, "bilinear", "disabled")
    assert resized.shape == (2, 4, 3, 4, 12)
    assert torch.equal(resized[:, :, 1], utils.common_upscale(video[:, :, 1], 12, 4, "bilinear", "disabled"))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lanczos_is_pils_in_eight_bits(channels):
    samples = torch.rand(2, channels, 8, 8)
    resized = utils.common_upscale(samples, 5, 6, "lanczos", "disabled")
    levels = (samples[1].movedim(0, -1).numpy() * 255).astype(numpy.uint8)
    expected = numpy.array(Image.fromarray(levels.squeeze()).resize((5, 6), Image.Resampling.LANCZOS)).astype(numpy.float32) / 255
    got = resized[1] if channels == 1 else resized[1].movedim(0, -1)
    assert numpy.array_equal(got.squeeze().numpy(), expected)


def test_bislerp_keeps_lengths_of_directions_between_and_dtype():
    corner = torch.zeros(1, 2, 1, 2, dtype=torch.float16)
    corner[0, 0, 0, 0] = corner[0, 1, 0, 1] = 1.0  # east, then north
    turned = utils.bislerp(corner, 4, 1)
    assert turned.dtype == torch.float16
    assert torch.allclose(turned.float().norm(dim=1), torch.ones(1, 1, 4), atol=2e-3)


def test_bislerp_of_zero_equal_and_opposite_vectors_is_finite():
    values = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]).T.reshape(1, 2, 1, 4)
    assert utils.bislerp(values, 9, 3).isfinite().all()
    assert torch.equal(utils.bislerp(torch.ones(1, 4, 4, 4), 7, 5), torch.ones(1, 4, 5, 7))


class Counter:
    def __init__(self):
        self.value = 0

    def update(self, steps):
        self.value += steps


@pytest.mark.parametrize("width, height", [(20, 30), (64, 64), (100, 65), (64, 200)])
def test_tiles_cover_the_picture_without_seams(width, height):
    samples, counter = torch.rand(2, 3, height, width), Counter()
    scaled = utils.tiled_scale(samples, lambda tile: tile.repeat_interleave(2, -1).repeat_interleave(2, -2), 64, 64, 8, 2, 3, pbar=counter)
    assert torch.allclose(scaled, samples.repeat_interleave(2, -1).repeat_interleave(2, -2), atol=1e-6)
    assert counter.value == 2 * utils.get_tiled_scale_steps(width, height, 64, 64, 8)


def test_tiles_in_one_and_three_dimensions_and_downwards():
    line = torch.rand(1, 2, 50)
    assert torch.allclose(utils.tiled_scale_multidim(line, lambda tile: tile, (16,), 4, 1, 2), line, atol=1e-6)
    block = torch.rand(1, 1, 6, 40, 40)
    half = utils.tiled_scale_multidim(block, lambda tile: tile[..., ::2, ::2], (6, 16, 16), (0, 4, 4), (1, 2, 2), 1, downscale=True)
    assert torch.allclose(half, block[..., ::2, ::2], atol=1e-6)


def test_lengths_may_follow_a_function():
    frames = torch.rand(1, 1, 5, 40, 40)

    def longer(length):
        return max(0, 2 * length - 1)

    out = utils.tiled_scale_multidim(
        frames, lambda tile: tile.repeat_interleave(2, 2)[:, :, 1:], (5, 16, 16), (1, 4, 4), (longer, 1, 1), 1, index_formulas=(2, 1, 1)
    )
    assert torch.allclose(out, frames.repeat_interleave(2, 2)[:, :, 1:], atol=1e-6)


def test_tile_errors_reach_the_caller():
    def fail(_tile):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        utils.tiled_scale(torch.rand(1, 3, 100, 100), fail)


@pytest.mark.parametrize(("overlap", "message"), [(16, "overlap must be smaller"), (40, "overlap must be smaller")])
def test_tiles_that_never_get_across_are_an_error_not_empty(overlap, message):
    for call in (
        lambda: utils.tiled_scale(torch.rand(1, 3, 30, 100), lambda tile: tile, 16, 64, overlap, 1),
        lambda: utils.get_tiled_scale_steps(100, 30, 16, 64, overlap),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_gaps_between_tiles_are_an_error_not_nan():
    with pytest.raises(ValueError, match="leave gaps"):
        utils.tiled_scale(torch.rand(1, 3, 30, 30), lambda tile: tile[..., :-1, :-1], 16, 16, 0, 1)
