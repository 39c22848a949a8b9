"""Painter, Curve Editor, Image Histogram and Draw Text Overlay."""

import numpy
import pytest
import torch
from PIL import Image, ImageFont

import folder_paths
from comfy_api.input import CurveInput
from comfy_extras import nodes_text_overlay
from comfy_extras.nodes_curve import CurveEditor, ImageHistogram
from comfy_extras.nodes_painter import Painter
from comfy_extras.nodes_text_overlay import TextOverlay


@pytest.fixture
def painted(tmp_path, monkeypatch):
    """The name of a painted picture, red on the left half and clear on the right; previews go to a folder of their own."""
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    levels = numpy.zeros((64, 64, 4), dtype=numpy.uint8)
    levels[:, :32] = (255, 0, 0, 255)
    Image.fromarray(levels).save(tmp_path / "paint.png")
    return "paint.png"


def test_paint_covers_image_or_colour(painted):
    over_colour = Painter.execute(painted, 64, 64, "#0000ff")
    picture, mask = over_colour.args
    assert picture[0, 5, 5].tolist() == [1.0, 0.0, 0.0] and picture[0, 5, 60].tolist() == [0.0, 0.0, 1.0]
    assert mask.shape == (1, 64, 64) and mask[0, :, :32].min() == 1 and mask[0, :, 32:].max() == 0
    over_image = Painter.execute(painted, 64, 64, "#000000", torch.full((2, 32, 48, 3), 0.5)).args[0]
    assert over_image.shape == (1, 32, 48, 3) and over_image[0, 5, 46].tolist() == [0.5, 0.5, 0.5]


def test_nothing_painted_is_what_lies_below(painted):
    picture, mask = Painter.execute("", 64, 128, "#00ff00").args
    assert picture.shape == (1, 128, 64, 3) and picture[0, 0, 0].tolist() == [0.0, 1.0, 0.0] and not mask.any()


def test_painting_anew_is_noticed(painted, tmp_path):
    before = Painter.fingerprint_inputs(painted, width=64, height=64)
    Image.new("RGBA", (64, 64)).save(tmp_path / painted)
    assert before and before != Painter.fingerprint_inputs(painted, width=64, height=64)
    assert Painter.fingerprint_inputs("gone.png") == Painter.fingerprint_inputs("") == ""


def test_a_curve_is_handed_on_with_its_histogram():
    answer = CurveEditor.execute([[0.0, 0.0], [1.0, 1.0]], [1, 2])
    assert isinstance(answer.args[0], CurveInput) and answer.ui == {"histogram": [1, 2]}
    assert CurveEditor.execute([[0.0, 0.0], [1.0, 1.0]]).ui is None


def test_levels_are_counted():
    image = torch.zeros(1, 2, 2, 3)
    image[0, 0, 0] = torch.tensor([1.0, 0.5, 0.0])
    rgb, bright, red, green, blue = ImageHistogram.execute(image).args
    assert (red[0], red[255], green[127], blue[0]) == (3, 1, 1, 4) and sum(bright) == 4 and bright[0] == 3
    assert rgb[0] == (3 + 3 + 4) // 3
    assert ImageHistogram.execute(image[..., :1]).args[2:] == (red, red, red)


def rows_written(position, text="Word", **settings):
    given = {"font_size": 10.0, "color": "#ffffff", "position": position, "align": "left", "outline": False, **settings}
    image = torch.zeros(1, 200, 200, 3)
    return TextOverlay.execute(image, text, **given).args[0][0].amax(dim=-1)


def test_text_stands_where_it_should():
    top, bottom = rows_written("top"), rows_written("bottom")
    assert top[:100].any() and not top[100:].any() and bottom[100:].any() and not bottom[:100].any()
    left, right = rows_written("top", align="left"), rows_written("top", align="right")
    assert left[:, :100].any() and not left[:, 150:].any() and right[:, 100:].any() and not right[:, :50].any()


def test_long_text_is_broken_and_shrinks_until_it_fits():
    lines = rows_written("top", "word " * 12)
    assert lines[60:].any() and not lines[:, 199].any()
    small = rows_written("top", "word " * 500, font_size=50.0)
    assert small.any()


def test_written_line_breaks_colours_and_outlines():
    assert rows_written("top", "a\\nb").any(dim=1).sum() > 1.5 * rows_written("top", "ab").any(dim=1).sum()
    image = torch.ones(2, 64, 64, 4) * 0.5
    drawn = TextOverlay.execute(image, "X", 50.0, "#ff0000", "top", "left", True).args[0]
    assert drawn.shape == image.shape and drawn[0, ..., 3].max() == 1.0
    assert (drawn[0, ..., :3] == torch.tensor([1.0, 0.0, 0.0])).all(dim=-1).any(), "red letters"
    assert (drawn[0, ..., :3] == 0).all(dim=-1).any(), "with black outlines"
    assert TextOverlay.execute(image, " \n", 5.0, "#ffffff", "top", "left", True).args[0] is image


def test_words_longer_than_a_line_are_cut():
    font = ImageFont.load_default(size=10)
    lines = nodes_text_overlay._broken("a " + "w" * 40, font, 100)
    assert lines[0] == "a" and "".join(lines[1:]) == "w" * 40 and all(font.getlength(line) <= 100 for line in lines)
    assert nodes_text_overlay._broken("", font, 100) == [""] and nodes_text_overlay._broken("ab", font, 1) == ["a", "b"]
