"""Save Image (Advanced): depths, colour spaces, metadata, and what is missing."""

import json
import sys
import types

import numpy
import pytest
import torch
from PIL import Image

import folder_paths
from comfy.cli_args import args
from comfy_extras import deep_image_writing
from comfy_extras.advanced_saving_node import SaveImageAdvanced

av = pytest.importorskip("av", reason="PNG with 16 bits is written by PyAV: pip install av")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Saves images by the node; the paths of the files."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    node = type("Saving", (SaveImageAdvanced,), {"hidden": types.SimpleNamespace(prompt={"1": "é"}, extra_pnginfo={"workflow": [1]})})

    def save(images, **chosen):
        answer = node.execute(images, "pre", chosen)
        assert answer.args[0] is images
        return [tmp_path / one["filename"] for one in answer.ui["images"]]

    return save


def levels_of(path):
    """The 16-bit levels of a PNG."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        channels = {"gray16be": 1, "rgb48be": 3, "rgba64be": 4}[frame.format.name]
        return frame.reformat(format=frame.format.name.replace("be", "le")).to_ndarray().reshape(frame.height, frame.width, channels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_kept(saved, channels):
    image = torch.rand(1, 3, 5, channels)
    (path,) = saved(image, format="png", bit_depth="16-bit", input_color_space="sRGB")
    assert numpy.array_equal(levels_of(path), (image[0] * 65535).to(torch.int32).numpy().astype(numpy.uint16))


def test_values_beyond_the_range_are_clipped(saved):
    (path,) = saved(torch.tensor([-0.5, 1.5, 0.5]).view(1, 1, 1, 3), format="png", bit_depth="16-bit")
    assert levels_of(path).ravel().tolist() == [0, 65535, 32767]


@pytest.mark.parametrize("depth", ["8-bit", "16-bit"])
def test_prompt_and_workflow_are_in_the_file_unless_switched_off(saved, depth, monkeypatch):
    (path,) = saved(torch.rand(1, 4, 4, 3), format="png", bit_depth=depth)
    with Image.open(path) as opened:
        opened.load()
        assert {key: json.loads(text) for key, text in opened.text.items()} == {"prompt": {"1": "é"}, "workflow": [1]}
    monkeypatch.setattr(args, "disable_metadata", True)
    (path,) = saved(torch.rand(1, 4, 4, 3), format="png", bit_depth=depth)
    with Image.open(path) as opened:
        opened.load()
        assert not opened.text


def test_each_image_has_a_file_of_its_own(saved):
    images = torch.rand(2, 4, 4, 3)
    first = saved(images, format="png", bit_depth="8-bit")
    assert [path.name for path in first] == ["pre_00001.png", "pre_00002.png"]
    assert [path.name for path in saved(images, format="png", bit_depth="16-bit")] == ["pre_00003.png", "pre_00004.png"]
    assert numpy.array_equal(numpy.asarray(Image.open(first[1])), (images[1].numpy() * 255).astype(numpy.uint8))


@pytest.mark.parametrize(
    ("space", "signal", "light"),
    [("sRGB", 0.5, 0.21404), ("sRGB", 0.02, 0.02 / 12.92), ("HDR", 0.5, 1 / 12), ("HDR", 1.0, 1.0), ("linear", 3.5, 3.5)],
)
def test_exr_holds_linear_light(saved, space, signal, light):
    openexr = pytest.importorskip("OpenEXR", reason="EXR is written by the OpenEXR package: pip install OpenEXR")
    image = torch.full((1, 2, 3, 4), signal)
    image[..., 3] = 0.25
    (path,) = saved(image, format="exr", bit_depth="32-bit float", input_color_space=space)
    with openexr.File(str(path)) as file:
        pixels, header = file.channels()["RGBA"].pixels, dict(file.header())
    assert pixels.shape == (2, 3, 4) and pixels[..., :3] == pytest.approx(light, rel=1e-4) and pixels[..., 3] == pytest.approx(0.25)
    assert json.loads(header["prompt"]) == {"1": "é"} and json.loads(header["workflow"]) == [1]
    assert header["chromaticities"][0] == pytest.approx(0.708 if space == "HDR" else 0.64)


@pytest.mark.parametrize("channels", [1, 3])
def test_exr_keeps_what_no_png_can(saved, channels):
    openexr = pytest.importorskip("OpenEXR", reason="EXR is written by the OpenEXR package: pip install OpenEXR")
    image = torch.tensor([-2.0, 1e-7, 5e4]).view(1, 1, 3, 1).repeat(1, 1, 1, channels)
    (path,) = saved(image, format="exr", bit_depth="32-bit float", input_color_space="linear")
    with openexr.File(str(path)) as file:
        pixels = file.channels()["Y" if channels == 1 else "RGB"].pixels
    assert numpy.array_equal(pixels.reshape(1, 3, channels), image[0].numpy())


def test_a_missing_package_is_named(saved, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    monkeypatch.setattr(deep_image_writing, "openexr", type(deep_image_writing.openexr)("OpenEXR"))
    with pytest.raises(ImportError, match="pip install OpenEXR"):
        saved(torch.rand(1, 2, 2, 3), format="exr", bit_depth="32-bit float")
    assert not list(tmp_path.iterdir())


def test_other_numbers_of_channels_are_refused(saved, tmp_path):
    with pytest.raises(ValueError, match="2 channels"):
        saved(torch.rand(1, 2, 2, 2), format="png", bit_depth="16-bit")
    assert not list(tmp_path.iterdir())
