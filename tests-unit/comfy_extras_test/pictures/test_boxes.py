"""Bounding boxes: their forms, the editor's node, drawing and cutting."""

import json

import pytest
import torch

from comfy_extras import box_preview, box_values
from comfy_extras.nodes_bounding_boxes import CreateBoundingBoxes
from comfy_extras.nodes_rtdetr import COCO_CLASSES, DrawBBoxes
from comfy_extras.nodes_sdpose import CropByBBoxes

BOX = {"x": 10, "y": 20, "width": 30, "height": 40, "metadata": {"type": "text", "text": "hi", "desc": "a sign", "palette": ["#aabbcc"]}}
ELEMENT = {"type": "text", "bbox": [200, 100, 600, 400], "text": "hi", "desc": "a sign", "color_palette": ["#AABBCC"]}


@pytest.mark.parametrize("given", [BOX, [BOX], [[BOX]], json.dumps([BOX]), ELEMENT, [ELEMENT], json.dumps(ELEMENT)])
def test_every_form_means_the_same_box(given):
    (box,) = box_values.read_boxes(given, 100, 100)
    assert {side: box[side] for side in ("x", "y", "width", "height")} == {"x": 10, "y": 20, "width": 30, "height": 40}
    assert box_values.regions_to_elements(box_values.boxes_to_regions([box], 100, 100)) == [ELEMENT]


@pytest.mark.parametrize("given", [None, "", "  ", [], "[]", [[]]])
def test_nothing_is_no_box(given):
    assert box_values.read_boxes(given, 100, 100) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{", "JSON"),
        (5, "got int"),
        ([1], "only"),
        ([{"a": 1}], "x, y"),
        ([ELEMENT, {"desc": "x"}], "bbox"),
        ([{"bbox": ["a"] * 4}], "numbers"),
    ],
)
def test_what_is_no_box_is_told(given, told):
    with pytest.raises(ValueError, match=told):
        box_values.read_boxes(given, 100, 100)


def test_boxes_drawn_backwards_are_turned():
    region = {"x": 0.5, "y": 0.5, "w": -0.25, "h": -0.5, "type": "obj", "text": "", "desc": "", "palette": []}
    assert box_values.regions_to_frames([region], 100, 100) == [[{"x": 25, "y": 0, "width": 25, "height": 50}]]
    assert box_values.regions_to_elements([region])[0]["bbox"] == [0, 250, 500, 500]


def test_the_editor_holds_until_its_input_changes():
    drawn = [{"x": 0, "y": 0, "width": 50, "height": 50}]
    fresh = CreateBoundingBoxes.execute(100, 100, editor_state=drawn, bboxes=[BOX])
    assert fresh.args[1][0][0]["x"] == 10 and fresh.ui["input_bboxes"] == [BOX] and fresh.ui["dims"] == [100, 100]
    kept = CreateBoundingBoxes.execute(100, 100, editor_state=drawn, last_incoming=[BOX], bboxes=[BOX])
    assert kept.args[1] == [[{"x": 0, "y": 0, "width": 50, "height": 50}]]
    empty = CreateBoundingBoxes.execute(100, 100)
    assert empty.args[1:] == ([], []) and "input_bboxes" not in empty.ui


def test_the_picture_shows_the_regions_on_the_background():
    regions = box_values.boxes_to_regions([{"x": 64, "y": 64, "width": 128, "height": 128, "metadata": {"palette": ["#ff0000"]}}], 256, 256)
    picture = box_preview.draw_regions(regions, 256, 256)
    assert picture.shape == (1, 256, 256, 3) and picture[0, 128, 64].tolist() == [1.0, 0.0, 0.0]
    assert box_preview.draw_regions([], 4096, 1024).shape == (1, 256, 1024, 3)
    dark = box_preview.draw_regions([], 8, 8, torch.ones(16, 32, 3))
    assert dark.shape == (1, 16, 32, 3) and dark.mean().item() == pytest.approx(0.25, abs=0.01)


def test_descriptions_are_written_and_broken_into_lines():
    def picture(text):
        box = {"x": 0, "y": 0, "width": 200, "height": 200, "metadata": {"desc": text}}
        return box_preview.draw_regions(box_values.boxes_to_regions([box], 256, 256), 256, 256)

    plain, short, long = (picture(text) for text in ("", "word", "word " * 30))
    rows = [(one != plain).any(dim=-1)[0].any(dim=1).sum().item() for one in (short, long)]
    assert 0 < rows[0] < 16 and rows[1] > 2 * rows[0]


def test_detections_are_drawn_in_their_classes_colours():
    image = torch.zeros(2, 64, 64, 3)
    drawn = DrawBBoxes.execute([{"x": 8, "y": 8, "width": 40, "height": 40, "label": COCO_CLASSES[2], "score": 0.5}], image).args[0]
    assert drawn.shape == (2, 64, 64, 3) and torch.equal(drawn[0], drawn[1])
    assert drawn[0, 47, 30].tolist() == [0.0, 0.0, 1.0] and len(COCO_CLASSES) == 80
    apart = DrawBBoxes.execute([[], [{"x": 8, "y": 8, "width": 40, "height": 40}]], image).args[0]
    assert not apart[0].any() and apart[1, 48, 30].tolist() == [1.0, 0.0, 0.0]


def test_boxes_without_an_image_are_drawn_on_black_that_holds_them():
    assert DrawBBoxes.execute({"x": 5, "y": 6, "width": 20, "height": 30}).args[0].shape == (1, 36, 25, 3)
    assert DrawBBoxes.execute([]).args[0].shape == (1, 640, 640, 3)


def test_boxes_are_cut_out():
    image = torch.rand(2, 100, 100, 3)
    boxes = [[{"x": 10, "y": 20, "width": 30, "height": 30}, {"x": 30, "y": 40, "width": 30, "height": 30}]]
    whole = CropByBBoxes.execute(image, boxes, 100, 100, 0).args[0]
    assert torch.allclose(whole[:, ::2, ::2], image[:, 20:70, 10:60])
    assert CropByBBoxes.execute(image, [], 64, 64, 0).args[0] is image
    assert len(CropByBBoxes.execute(image, [[], boxes[0]], 64, 64, 0).args[0]) == 1


def test_bars_keep_the_aspect_ratio_and_empty_boxes_give_the_middle():
    image = torch.ones(1, 100, 100, 3)
    padded = CropByBBoxes.execute(image, {"x": 0, "y": 0, "width": 40, "height": 20}, 64, 64, 0, "pad").args[0]
    assert padded[0, :16].max() == 0 and padded[0, 16:48].min() == 1 and padded[0, 48:].max() == 0
    image[0, :, :35] = 0
    middle = CropByBBoxes.execute(image, {"x": 300, "y": 0, "width": 5, "height": 5}, 64, 64, 0).args[0]
    assert middle.min() == 1
