"""The layer editor: documents, what the editor saved, blending, composing."""

import json

import numpy
import pytest
import torch

import folder_paths
from comfy_extras import layer_blending, layer_documents
from comfy_extras.nodes_compositor import AddLayer, ImageCompositor, LayersFromBoundingBoxes


@pytest.fixture(autouse=True)
def previews(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))


def plain(level, height=8, width=8, channels=3):
    return torch.full((1, height, width, channels), level)


def added(image, layers=None, **look):
    return AddLayer.execute(image, layers=layers, **look).args[0]


def composed(document, saved=None):
    answer = ImageCompositor.execute(document, saved)
    return answer.args[0], answer.args[1], answer.ui


def test_layers_cover_each_other_by_their_order():
    document = added(plain(1.0, 4, 4), added(plain(0.2), z_index=1), x=2, y=2)
    picture, mask, told = composed(document)
    assert picture.shape == (1, 8, 8, 3) and not mask.any() and picture[0, 3, 3, 0].item() == pytest.approx(0.2, abs=1e-2)
    picture, _, _ = composed(added(plain(1.0, 4, 4), added(plain(0.2)), x=2, y=2, z_index=1))
    assert picture[0, 3, 3].tolist() == pytest.approx([1.0] * 3) and picture[0, 1, 1, 0].item() == pytest.approx(0.2, abs=1e-2)
    assert len(told["compositor_layers"]) == len(told["compositor_inputs"]) == 2 and "compositor_state_stale" not in told


def test_canvas_holds_all_layers_or_is_what_the_document_says():
    assert composed(added(plain(1.0), x=5, y=1))[0].shape == (1, 9, 13, 4)
    document = LayersFromBoundingBoxes.execute(plain(1.0), [], canvas_width=6, canvas_height=7).args[0]
    assert composed(added(plain(0.5), document))[0].shape == (1, 7, 6, 3)
    assert composed(None)[0].shape == (1, 64, 64, 3)


def test_masks_and_alpha_make_layers_transparent():
    mask = torch.zeros(1, 4, 4)
    mask[:, :, 2:] = 1
    picture, seen, _ = composed(added(plain(0.5, 8, 8, 4), mask=mask))
    assert picture.shape[-1] == 4 and picture[0, 0, 0, 3].item() == pytest.approx(0.5, abs=1e-2) and seen[0, 0, 7] == 1


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"version": 2}, "version 2"),
        ({"layers": [{}]}, "no image"),
        ({"layers": [{"image": torch.zeros(1, 2, 2, 3), "type": "text"}]}, "'text'"),
        ({"layers": [{"image": torch.zeros(1, 2, 2, 3), "blend_mode": "x"}]}, "'x' is not known"),
        ({"layers": [{"image": torch.zeros(51, 2, 2, 3)}]}, "at most 50"),
    ],
)
def test_wrong_documents_are_told(document, told):
    with pytest.raises(ValueError, match=told):
        composed(document)


def arrangement(document, **changes):
    inputs = composed(document)[2]["compositor_inputs"]
    place = {"x": 1, "y": 1, "w": 2, "h": 2, "rotation": 0}
    return {"version": 1, "canvas": {"w": 4, "h": 5}, "layers": [{"transform": place}], "inputs": inputs, **changes}


def test_what_the_editor_saved_holds_while_its_layers_stay_the_same():
    document = added(plain(1.0))
    background = {"color": "#f00", "opacity": 1.0, "visible": True}
    picture, _, told = composed(document, json.dumps(arrangement(document, background=background)))
    assert picture.shape == (1, 5, 4, 3) and picture[0, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert picture[0, 2, 2].tolist() == pytest.approx([1.0] * 3)
    assert "compositor_state_stale" not in told
    picture, _, told = composed(added(plain(0.9)), arrangement(document))
    assert picture.shape == (1, 8, 8, 3) and told["compositor_state_stale"] == [True]


@pytest.mark.parametrize(
    "changes", [{"version": 3}, {"canvas": {"w": 0, "h": 5}}, {"canvas": None}, {"layers": []}, {"inputs": ["other"]}, {"inputs": None}]
)
def test_what_cannot_be_used_of_it_is_stale(changes):
    document = added(plain(1.0))
    assert composed(document, arrangement(document, **changes))[2]["compositor_state_stale"] == [True]
    assert composed(document, "{")[2]["compositor_state_stale"] == [True]


def test_saved_numbers_are_brought_into_their_range():
    document = added(plain(1.0))
    wild = {"opacity": 9, "blend": 5, "transform": {"x": float("nan"), "y": None, "w": -3, "h": 1e12, "rotation": "a"}}
    read = layer_documents.read_arrangement(arrangement(document, layers=[wild], order=[7]), layer_documents.read_document(document))
    assert read.order == (0,)
    (placement,) = read.placements
    assert (placement.opacity, placement.blend, placement.x, placement.width, placement.height) == (1.0, "normal", 0.0, 8.0, 16384.0)
    huge = arrangement(document, canvas={"w": 20000, "h": 5})
    with pytest.raises(ValueError, match="too large"):
        composed(document, huge)


def test_boxes_place_the_images_of_a_batch():
    boxes = [
        {"x": 1, "y": 2, "width": 4, "height": 4, "metadata": {"name": "a"}},
        {"x": 0, "y": 0, "metadata": {"content_rect": [2, 2, 3, 3], "desc": "b"}},
    ]
    boxes[1] |= {"width": 8, "height": 8}
    items = LayersFromBoundingBoxes.execute(torch.rand(3, 8, 8, 3), boxes, mask=torch.zeros(1, 8, 8)).args[0]["layers"]
    assert [(one["x"], one["y"], one.get("w"), one.get("name"), one["z_index"]) for one in items] == [
        (1, 2, 4, "a", 0), (2, 2, None, "b", 1), (0, 0, None, None, 2)
    ]  # fmt: skip
    assert items[1]["image"].shape == (1, 3, 3, 3) and items[1]["mask"].shape == (1, 3, 3)
    elements = [{"bbox": [0, 0, 500, 500]}]
    with pytest.raises(ValueError, match="canvas_width"):
        LayersFromBoundingBoxes.execute(plain(1.0), elements)
    placed = LayersFromBoundingBoxes.execute(plain(1.0), elements, canvas_width=20, canvas_height=40).args[0]
    assert (placed["layers"][0]["w"], placed["layers"][0]["h"], placed["canvas"]) == (10, 20, (20, 40))


def pixel(*values):
    return numpy.array([[values]], dtype=numpy.float32)


@pytest.mark.parametrize("mode", layer_blending.MODES)
def test_blending_stays_finite_and_a_clear_layer_changes_nothing(mode):
    levels = numpy.array([0.0, 0.25, 0.5, 1.0], dtype=numpy.float32)
    grid = numpy.stack(numpy.meshgrid(levels, levels, levels, levels, indexing="ij"), axis=-1).reshape(16, 16, 4)
    assert numpy.isfinite(layer_blending.blend_layers(grid, grid[::-1].copy(), mode, 0.7)).all()
    assert numpy.array_equal(layer_blending.blend_layers(grid, grid[::-1].copy(), mode, 0.0), grid)


def test_known_values_of_modes():
    below, above = pixel(0.5, 0.2, 0.1, 1.0), pixel(0.4, 0.4, 0.9, 1.0)
    assert layer_blending.blend_layers(below, above, "multiply", 1.0)[0, 0].tolist() == pytest.approx([0.2, 0.08, 0.09, 1.0])
    assert layer_blending.blend_layers(below, above, "normal", 0.5)[0, 0].tolist() == pytest.approx([0.45, 0.3, 0.5, 1.0])
    assert layer_blending.blend_layers(below, above, "divide", 1.0)[0, 0].tolist() == pytest.approx([1.0, 0.5, 1 / 9, 1.0], rel=1e-5)
    nothing = pixel(0.0, 0.0, 0.0, 0.0)
    assert layer_blending.blend_layers(nothing, above, "normal", 0.5)[0, 0].tolist() == pytest.approx([0.4, 0.4, 0.9, 0.5])
    assert layer_blending.blend_layers(nothing, above, "multiply", 1.0)[0, 0, 3] == 0, "only seen on what is there"
