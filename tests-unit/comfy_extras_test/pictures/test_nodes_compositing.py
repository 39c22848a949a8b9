"""Porter-Duff operators, alpha channels, morphology and YCbCr."""

import pytest
import torch

from comfy_extras.nodes_compositing import JoinImageWithAlpha, PorterDuffImageComposite, PorterDuffMode, SplitImageWithAlpha
from comfy_extras.nodes_morphology import ImageRGBToYUV, ImageYUVToRGB, Morphology


def combine(mode, source_alpha, target_alpha):
    """Colour and alpha of a white pixel combined with a black one."""
    white, black = torch.ones(1, 1, 1, 3), torch.zeros(1, 1, 1, 3)
    image, mask = PorterDuffImageComposite.execute(
        white, torch.full((1, 1, 1), 1 - source_alpha), black, torch.full((1, 1, 1), 1 - target_alpha), mode
    )
    return image[0, 0, 0, 0].item(), 1 - mask.item()


@pytest.mark.parametrize(
    "mode, colour, alpha",
    [
        ("CLEAR", 0, 0),
        ("SRC", 1, 0.5),
        ("DST", 0, 0.5),
        ("SRC_OVER", 2 / 3, 0.75),
        ("DST_OVER", 1 / 3, 0.75),
        ("SRC_IN", 1, 0.25),
        ("DST_IN", 0, 0.25),
        ("SRC_OUT", 1, 0.25),
        ("DST_OUT", 0, 0.25),
        ("SRC_ATOP", 0.5, 0.5),
        ("DST_ATOP", 0.5, 0.5),
        ("XOR", 0.5, 0.5),
        ("ADD", 0.5, 1.0),
        ("SCREEN", 2 / 3, 0.75),
        ("MULTIPLY", 0, 0.25),
        ("LIGHTEN", 1.0, 0.75),
        ("DARKEN", 1 / 3, 0.75),
        ("OVERLAY", 0, 0.75),
    ],
)
def test_operators_mix_half_transparent_pixels(mode, colour, alpha):
    assert combine(mode, 0.5, 0.5) == pytest.approx((colour, alpha))


def test_modes_keep_their_numbers():
    assert [mode.value for mode in PorterDuffMode] == list(range(18)) and PorterDuffMode.SRC_OVER.value == 16


def test_sizes_follow_the_destination_and_channels_must_agree():
    image, mask = PorterDuffImageComposite.execute(
        torch.rand(2, 4, 4, 3), torch.rand(3, 5, 5), torch.rand(4, 8, 6, 3), torch.rand(2, 8, 6), "SRC_OVER"
    )
    assert image.shape == (2, 8, 6, 3) and mask.shape == (2, 8, 6)
    with pytest.raises(ValueError, match="4 channels and destination 3"):
        PorterDuffImageComposite.execute(torch.rand(1, 4, 4, 4), torch.rand(1, 4, 4), torch.rand(1, 4, 4, 3), torch.rand(1, 4, 4), "SRC")


def test_alpha_channel_is_split_off_and_joined_again():
    image = torch.rand(2, 4, 4, 4)
    colours, mask = SplitImageWithAlpha.execute(image)
    assert torch.equal(colours, image[..., :3])
    assert torch.allclose(JoinImageWithAlpha.execute(colours, mask)[0], image)
    assert not SplitImageWithAlpha.execute(colours)[1].any()
    assert JoinImageWithAlpha.execute(colours[:1], torch.rand(3, 9, 9))[0].shape == (3, 4, 4, 4)


@pytest.mark.parametrize(
    "operation, expected",
    [
        ("dilate", [0, 1, 1, 1, 1]),
        ("erode", [0, 0, 0, 0, 0]),
        ("gradient", [0, 1, 1, 1, 1]),
        ("open", [0, 0, 0, 0, 0]),
        ("close", [0, 0, 1, 1, 1]),
        ("top_hat", [0, 0, 1, 0, 1]),
        ("bottom_hat", [0, 0, 0, 1, 0]),
    ],
)
def test_morphology_of_two_dots(operation, expected):
    image = torch.zeros(1, 1, 5, 1)
    image[0, 0, [2, 4], 0] = 1.0
    (changed,) = Morphology.execute(image, operation, 3)
    assert changed.flatten().tolist() == expected


def test_colour_space_round_trip():
    image = torch.rand(2, 5, 5, 3)
    planes = ImageRGBToYUV.execute(image)
    assert planes[0].shape == image.shape
    assert torch.allclose(ImageYUVToRGB.execute(*planes)[0], image, atol=1e-5)
