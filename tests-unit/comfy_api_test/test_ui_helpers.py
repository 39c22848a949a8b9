"""Files that nodes save for the page: names, pixels and the workflow inside; and the messages that show them."""

import json
import os
import pathlib
import types

import pytest
import torch
from PIL import Image

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import UI, io, ui

PROMPT = {"1": {"class_type": "X", "inputs": {"text": "grün"}}}
WORKFLOW = {"nodes": [1, 2]}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("output", "temp", "input"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    monkeypatch.setattr(args, "disable_metadata", False)
    return tmp_path


@pytest.fixture
def node():
    return types.SimpleNamespace(hidden=io.HiddenHolder(prompt=PROMPT, extra_pnginfo={"workflow": WORKFLOW, "more": [1]}))


def images(count=2, channels=3):
    batch_BHWC = torch.zeros(count, 4, 6, channels)
    batch_BHWC[..., 0] = 0.5
    batch_BHWC[1:, 0, 0, :] = 7.0
    return batch_BHWC


def read(folders, result):
    return Image.open(os.path.join(folders, result["type"], result["subfolder"], result["filename"]))


def test_the_module_publishes_its_names():
    assert UI is ui and set(ui.__all__) <= set(dir(ui))


def test_pngs_are_numbered_and_carry_prompt_and_workflow(folders, node):
    results = ui.ImageSaveHelper.save_images(images(), "sub/pic_%batch_num%", io.FolderType.output, node)
    assert [result["filename"] for result in results] == ["pic_0_00001_.png", "pic_1_00002_.png"]
    assert results[0] == {"filename": "pic_0_00001_.png", "subfolder": "sub", "type": "output"}
    assert (results[0].type, results[0].subfolder) == (io.FolderType.output, "sub")
    first, second = (read(folders, result) for result in results)
    assert json.loads(first.text["prompt"]) == PROMPT and json.loads(first.text["workflow"]) == WORKFLOW and first.text["more"] == "[1]"
    assert first.getpixel((0, 0)) == (127, 0, 0) and second.getpixel((0, 0)) == (255, 255, 255)


def test_names_of_metadata_that_png_lacks_do_not_fail_the_picture(folders):
    hidden = types.SimpleNamespace(hidden=io.HiddenHolder(prompt=PROMPT, extra_pnginfo={"\ud83d": 1, "工": 2}))
    (result,) = ui.ImageSaveHelper.save_images(images(1), "odd", io.FolderType.output, hidden)
    assert set(read(folders, result).text) == {"prompt", "?"}


def test_grey_and_transparent_images_keep_their_channels(folders):
    for channels, mode in ((1, "L"), (4, "RGBA")):
        (result,) = ui.ImageSaveHelper.save_images(images(1, channels), f"c{channels}", io.FolderType.temp, None)
        assert read(folders, result).mode == mode


def test_metadata_is_left_out_when_disabled_or_unknown(folders, node, monkeypatch):
    for cls in (None, types.SimpleNamespace(hidden=None), types.SimpleNamespace(hidden=io.HiddenHolder())):
        (result,) = ui.ImageSaveHelper.save_images(images(1), "none", io.FolderType.output, cls)
        assert read(folders, result).text == {}
    monkeypatch.setattr(args, "disable_metadata", True)
    (result,) = ui.ImageSaveHelper.save_images(images(1), "none", io.FolderType.output, node)
    assert read(folders, result).text == {}
    webp = ui.ImageSaveHelper.save_animated_webp(images(), "none", io.FolderType.output, node, 10.0, True, 80, 0)
    assert dict(read(folders, webp).getexif()) == {}


def test_animated_png_has_private_chunks_behind_the_image_data(folders, node):
    shown = ui.ImageSaveHelper.get_save_animated_png_ui(images(), "anim", node, fps=5.0, compress_level=1).as_dict()
    assert shown["animated"] == [True]
    picture = read(folders, shown["images"][0])
    assert picture.n_frames == 2 and picture.info["duration"] == 200
    raw = pathlib.Path(picture.filename).read_bytes()
    assert raw.rindex(b"comfprompt\0" + json.dumps(PROMPT).encode()) > raw.index(b"IDAT")
    assert b"comfworkflow\0" + json.dumps(WORKFLOW).encode() in raw


def test_animated_webp_has_exif_strings(folders, node):
    shown = ui.ImageSaveHelper.get_save_animated_webp_ui(images(), "anim", node, fps=10.0, lossless=True, quality=80, method=0)
    picture = read(folders, shown.as_dict()["images"][0])
    exif = picture.getexif()
    assert picture.n_frames == 2
    assert exif[0x0110] == "prompt:" + json.dumps(PROMPT)
    assert exif[0x010F] == "workflow:" + json.dumps(WORKFLOW) and exif[0x010E] == "more:[1]"


def test_one_image_is_not_an_animation(node):
    shown = ui.ImageSaveHelper.get_save_animated_png_ui(images(1), "one", node, fps=5.0, compress_level=1)
    assert "animated" not in shown.as_dict() and "animated" not in ui.SavedImages([]).as_dict()


def test_empty_batch_and_escaping_prefix_are_refused(folders):
    with pytest.raises(ValueError, match="batch is empty"):
        ui.ImageSaveHelper.save_images(images(0), "x", io.FolderType.output, None)
    with pytest.raises(Exception, match=r"outside|folder"):
        ui.ImageSaveHelper.save_images(images(1), "../../x", io.FolderType.output, None)
    assert not [name for name in os.listdir(folders) if name.endswith(".png")]


def test_previews_go_to_the_temp_folder_under_fresh_names(folders, node):
    first, second = (ui.PreviewImage(images(1), cls=node).as_dict() for _ in range(2))
    assert first["animated"] == [False] and first["images"][0]["type"] == "temp"
    assert first["images"][0]["filename"] != second["images"][0]["filename"]
    assert json.loads(read(folders, first["images"][0]).text["prompt"]) == PROMPT


def test_mask_preview_is_grey(folders):
    mask_HW = torch.zeros(4, 6)
    mask_HW[0, 0] = 1.0
    (result,) = ui.PreviewMask(mask_HW).as_dict()["images"]
    picture = read(folders, result)
    assert picture.size == (6, 4) and picture.getpixel((0, 0)) == (255, 255, 255) and picture.getpixel((1, 1)) == (0, 0, 0)


def test_previews_without_files_become_messages():
    assert ui.PreviewText("hello").as_dict() == {"text": ["hello"]}
    assert ui.PreviewVideo([{"filename": "a"}]).as_dict() == {"images": [{"filename": "a"}], "animated": [True]}
    assert ui.PreviewUI3D("m.glb", {"zoom": 1}).as_dict() == {"result": ["m.glb", {"zoom": 1}, None]}
    assert ui.PreviewUI3DAdvanced("m", "c", "i").as_dict() == {"result": ["m", "c", "i"]}
    assert ui.SavedAudios([]).as_dict() == {"audio": []}


def test_3d_preview_saves_its_background(folders):
    path = ui.PreviewUI3D("m.glb", None, bg_image=images(1)).as_dict()["result"][2]
    assert Image.open(os.path.join(folders, path)).size == (6, 4)


@pytest.mark.parametrize(
    ("format", "quality", "codec", "rate_hz"),
    [("flac", "128k", "flac", 44100), ("mp3", "V0", "mp3float", 44100), ("opus", "96k", "opus", 48000)],
)
def test_sound_is_saved_with_its_workflow(folders, node, format, quality, codec, rate_hz):
    av = pytest.importorskip("av")
    tone_BCT = torch.sin(torch.linspace(0, 600, 22050)).repeat(2, 2, 1) * 0.5
    shown = ui.AudioSaveHelper.get_save_audio_ui({"waveform": tone_BCT, "sample_rate": 44100}, "tone", node, format, quality)
    names = [result["filename"] for result in shown.as_dict()["audio"]]
    assert names == [f"tone_00001.{format}", f"tone_00002.{format}"]
    with av.open(os.path.join(folders, "output", names[0])) as container:
        stream = container.streams.audio[0]
        tags = {key.lower(): value for key, value in (container.metadata | stream.metadata).items()}
        assert stream.codec_context.name.startswith(codec[:4]) and stream.rate == rate_hz and stream.channels == 2
        assert json.loads(tags["prompt"]) == PROMPT and json.loads(tags["workflow"]) == WORKFLOW
        seconds = sum(frame.samples for frame in container.decode(stream)) / rate_hz
    assert seconds == pytest.approx(0.5, abs=0.06)


def test_sound_preview_is_flac_in_the_temp_folder(folders):
    pytest.importorskip("av")
    (result,) = ui.PreviewAudio({"waveform": torch.zeros(1, 1, 800), "sample_rate": 8000}).as_dict()["audio"]
    assert result["type"] == "temp" and os.path.isfile(os.path.join(folders, "temp", result["filename"]))


def test_sound_that_cannot_be_saved_is_refused():
    with pytest.raises(ValueError, match="not as 'wav'"):
        ui.AudioSaveHelper.save_audio({}, "x", io.FolderType.output, None, format="wav")
    pytest.importorskip("av")
    with pytest.raises(ValueError, match="5 channels"):
        ui.AudioSaveHelper.save_audio({"waveform": torch.zeros(1, 5, 8), "sample_rate": 8000}, "x", io.FolderType.output, None)
