"""Cutting, joining and padding images, tiles, animations and drawings."""

import io
import json
import re
import types

import pytest
import torch
from PIL import Image

import folder_paths
from comfy.cli_args import args
from comfy_extras import nodes_images as nodes


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


def test_crop_starts_inside_and_ends_at_the_edge():
    image = torch.rand(1, 8, 10, 3)
    assert torch.equal(nodes.ImageCrop.execute(image, 4, 3, 2, 1)[0], image[:, 1:4, 2:6])
    assert nodes.ImageCrop.execute(image, 4, 4, 50, 50)[0].shape == (1, 1, 1, 3)


def test_region_crop_shows_its_result(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    image = torch.rand(1, 8, 10, 3)
    (region,) = nodes.BoundingBox.execute(2, 1, 4, 3)
    answer = nodes.ImageCropV2.execute(image, region)
    assert torch.equal(answer.args[0], image[:, 1:4, 2:6])
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_batches_are_repeated_and_picked():
    image = torch.arange(3.0).reshape(3, 1, 1, 1)
    assert nodes.RepeatImageBatch.execute(image, 2)[0].flatten().tolist() == [0, 1, 2, 0, 1, 2]
    assert [nodes.ImageFromBatch.execute(image, index, 2)[0].flatten().tolist() for index in (0, -1, 9)] == [[0, 1], [2], [2]]


def test_noise_is_repeatable_and_leaves_the_global_generator_alone():
    image = torch.full((1, 4, 4, 3), 0.5)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    (first,) = nodes.ImageAddNoise.execute(image, 2**64 - 1, 0.5)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, nodes.ImageAddNoise.execute(image, 2**64 - 1, 0.5)[0])
    assert not torch.equal(first, nodes.ImageAddNoise.execute(image, 2, 0.5)[0])
    assert first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize(
    "direction, size, first, stripe",
    [("right", (4, 15), 0.0, (0, 6)), ("left", (4, 15), 1.0, (0, 7)), ("down", (9, 6), 0.0, (4, 0)), ("up", (9, 6), 1.0, (3, 0))],
)
def test_stitching_scales_the_second_to_the_common_side(direction, size, first, stripe):
    (stitched,) = nodes.ImageStitch.execute(torch.zeros(1, 4, 6, 3), direction, True, 1, "red", torch.ones(2, 8, 14, 3))
    assert stitched.shape == (2, *size, 3) and stitched[0, 0, 0, 0] == first
    assert stitched[1][stripe].tolist() == [1.0, 0.0, 0.0]


def test_stitching_pads_when_sizes_may_differ_and_adds_alpha():
    (stitched,) = nodes.ImageStitch.execute(torch.zeros(1, 2, 2, 3), "right", False, 0, "white", torch.zeros(1, 4, 3, 4))
    assert stitched.shape == (1, 4, 5, 4)
    assert stitched[0, 0, 0].tolist() == [1, 1, 1, 1] and stitched[0, 1, 0].tolist() == [0, 0, 0, 1]
    alone = torch.rand(1, 2, 2, 3)
    assert nodes.ImageStitch.execute(alone, "up", True, 4, "white")[0] is alone


def test_fitting_into_a_size():
    (padded,) = nodes.ResizeAndPadImage.execute(torch.zeros(1, 4, 8, 3), 8, 8, "white", "area")
    assert padded[0, :, 0, 0].tolist() == [1, 1, 0, 0, 0, 0, 1, 1]


def test_the_size_is_returned_and_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(
        nodes,
        "server",
        types.SimpleNamespace(
            PromptServer=types.SimpleNamespace(
                instance=types.SimpleNamespace(send_progress_text=lambda text, node: shown.append((text, node)))
            )
        ),
    )
    holder = types.SimpleNamespace(unique_id="7")
    clone = type("Clone", (nodes.GetImageSize,), {"hidden": holder})
    assert clone.execute(torch.rand(2, 3, 4, 3)).args == (4, 3, 2)
    assert shown == [("width: 4, height: 3\n batch size: 2", "7")]


def test_images_are_rotated_flipped_and_scaled_to_a_side():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    assert nodes.ImageRotate.execute(image, "90 degrees")[0].flatten().tolist() == [3, 1, 4, 2]
    assert nodes.ImageFlip.execute(image, "x-axis: vertically")[0].flatten().tolist() == [3, 4, 1, 2]
    assert nodes.ImageFlip.execute(image, "y-axis: horizontally")[0].flatten().tolist() == [2, 1, 4, 3]
    assert nodes.ImageScaleToMaxDimension.execute(torch.rand(1, 10, 20, 3), "area", 8)[0].shape == (1, 4, 8, 3)


@pytest.mark.parametrize("size, tile, overlap", [((64, 64), 64, 0), ((200, 130), 64, 16), ((65, 300), 64, 63), ((50, 50), 64, 8)])
def test_tiles_join_to_the_picture_they_came_from(size, tile, overlap):
    image = torch.rand(1, *size, 3)
    (tiles,) = nodes.SplitImageToTileList.execute(image, tile, tile, overlap)
    assert all(piece.shape[1] <= tile and piece.shape[2] <= tile for piece in tiles)
    (joined,) = nodes.ImageMergeTileList.execute(tiles, [size[1]], [size[0]], [overlap])
    assert torch.allclose(joined, image, atol=1e-5)


FRAMES = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1).expand(3, 4, 4, 3)
EXTRA = {"prompt": {"1": {}}, "extra_pnginfo": {"workflow": [1]}}


def test_animated_png(output):
    answer = nodes.SaveAnimatedPNG.execute(FRAMES, 10.0, 4, "x", **EXTRA)
    assert answer["ui"] == {"images": [{"filename": "x_00001_.png", "subfolder": "", "type": "output"}], "animated": (True,)}
    saved = Image.open(output / "x_00001_.png")
    assert saved.n_frames == 3 and saved.info["duration"] == 100.0
    chunks = re.findall(rb"comf(\w+)\0([^\0]*?\})?", (output / "x_00001_.png").read_bytes())
    assert [key for key, _ in chunks] == [b"prompt", b"workflow"]


def test_animated_webp(output):
    nodes.SaveAnimatedWEBP.execute(FRAMES, 4.0, "x", True, 80, "fastest", **EXTRA)
    saved = Image.open(output / "x_00001_.webp")
    exif = saved.getexif()
    assert saved.n_frames == 3
    assert (exif[0x0110], exif[0x010F]) == ('prompt:{"1": {}}', "workflow:[1]")


def test_single_frame_is_not_announced_as_animated(output):
    assert "animated" not in nodes.SaveAnimatedWEBP.execute(FRAMES[:1], 4.0, "x", True, 80, "default")["ui"]


DRAWING = '<?xml version="1.0"?>\n<svg width="1"><svg/></svg>'


def test_drawing_carries_its_workflow_and_stays_valid(output):
    stream = io.BytesIO(DRAWING.encode())
    svg = types.SimpleNamespace(data=[stream])
    answer = nodes.SaveSVGNode.execute(svg, "d", {"1": "]]>"}, {"workflow": 2})
    assert answer["result"] == (svg,)
    content = (output / "d_00001_.svg").read_text()
    assert content.count("<metadata>") == 1
    embedded = re.search(r"<!\[CDATA\[(.*?)\]\]>", content, re.DOTALL).group(1)
    assert json.loads(embedded) == {"prompt": {"1": "]]>"}, "workflow": 2}


def test_drawing_without_metadata_is_written_as_it_is(output, monkeypatch):
    monkeypatch.setattr(args, "disable_metadata", True)
    nodes.SaveSVGNode.execute(types.SimpleNamespace(data=[io.BytesIO(DRAWING.encode())]), "d", {"1": 1})
    assert (output / "d_00001_.svg").read_text() == DRAWING
