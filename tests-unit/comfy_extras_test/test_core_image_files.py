"""Reading and writing picture files."""

import io
import json
import pathlib

import numpy
import pytest
import torch
from PIL import Image

import folder_paths
from comfy.cli_args import args
from comfy_extras import image_writing
from comfy_extras.core_image_files import LoadImage, LoadImageMask, LoadImageOutput, PreviewImage, SaveImage


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def put(folders: pathlib.Path, name: str, picture: Image.Image, **options) -> str:
    picture.save(folders / "input" / name, **options)
    return name


def gradient(mode: str = "RGB", size: tuple[int, int] = (5, 3)) -> Image.Image:
    bands = len(mode)
    values = numpy.arange(size[0] * size[1] * bands, dtype=numpy.uint8).reshape(size[1], size[0], bands) * 3
    return Image.fromarray(values)


def test_saved_values_are_scaled_clipped_and_cut_off(folders):
    images = torch.tensor([-1.0, 0.25, 0.5, 2 / 3, 1.0, 7.0]).repeat(3, 1, 1).permute(1, 2, 0)[None].reshape(1, 1, 6, 3)
    entry = SaveImage().save_images(images)["ui"]["images"][0]
    saved = numpy.array(Image.open(folders / "output" / entry["filename"]))
    assert saved[0, :, 0].tolist() == [0, 63, 127, 170, 255, 255]


def test_batch_is_numbered_and_carries_prompt_and_workflow(folders):
    images = torch.rand(2, 4, 4, 3)
    prompt, extra = {"1": {"class_type": "A"}}, {"workflow": {"nodes": []}}
    answer = SaveImage().save_images(images, "sub/picture", prompt, extra)
    assert answer["result"][0] is images
    assert [entry["filename"] for entry in answer["ui"]["images"]] == ["picture_00001_.png", "picture_00002_.png"]
    assert {(entry["subfolder"], entry["type"]) for entry in answer["ui"]["images"]} == {("sub", "output")}
    texts = Image.open(folders / "output" / "sub" / "picture_00002_.png").text
    assert {key: json.loads(value) for key, value in texts.items()} == {"prompt": prompt, **extra}


def test_metadata_can_be_switched_off(folders, monkeypatch):
    monkeypatch.setattr(args, "disable_metadata", True)
    entry = SaveImage().save_images(torch.rand(1, 4, 4, 3), prompt={"1": {}}, extra_pnginfo={"workflow": 1})["ui"]["images"][0]
    assert Image.open(folders / "output" / entry["filename"]).text == {}


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_channels_decide_the_kind_of_file(folders, channels, mode):
    entry = SaveImage().save_images(torch.rand(1, 4, 4, channels))["ui"]["images"][0]
    assert Image.open(folders / "output" / entry["filename"]).mode == mode


def test_failed_save_leaves_no_file(folders, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        SaveImage().save_images(torch.rand(1, 4, 4, 3))
    assert list((folders / "output").iterdir()) == []


def test_saving_outside_the_output_folder_is_refused(folders):
    with pytest.raises(Exception, match="output"):
        SaveImage().save_images(torch.rand(1, 4, 4, 3), "../outside/x")
    assert not (folders / "outside").exists()


def test_preview_goes_to_the_temporary_folder_under_a_random_name(folders):
    first, second = (PreviewImage().save_images(torch.rand(1, 4, 4, 3))["ui"]["images"][0] for _ in range(2))
    assert first["type"] == "temp" and (folders / "temp" / first["filename"]).is_file()
    assert first["filename"].split("_temp_")[1].split("_")[0] != second["filename"].split("_temp_")[1].split("_")[0]


def test_opaque_picture_has_small_empty_mask(folders):
    picture = gradient()
    image, mask = LoadImage().load_image(put(folders, "a.png", picture))
    assert torch.equal(image, torch.from_numpy(numpy.array(picture)[None].astype(numpy.float32) / 255))
    assert mask.shape == (1, 64, 64) and not mask.any()


def test_alpha_becomes_inverted_mask(folders):
    picture = gradient("RGBA")
    image, mask = LoadImage().load_image(put(folders, "a.png", picture))
    values = torch.from_numpy(numpy.array(picture).astype(numpy.float32) / 255)
    assert torch.equal(image[0], values[..., :3])
    assert torch.equal(mask[0], 1 - values[..., 3])


def test_transparent_palette_entry_becomes_mask(folders):
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    image, mask = LoadImage().load_image(put(folders, "a.png", picture, transparency=1))
    assert image[0, 0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert mask[0, 0].tolist() == [0, 1]


def test_sixteen_bit_grey_keeps_its_steps(folders):
    levels = numpy.array([[0, 256, 300, 65535]], dtype=numpy.uint16)
    image, _ = LoadImage().load_image(put(folders, "a.png", Image.fromarray(levels)))
    assert torch.allclose(image[0, 0, :, 0], torch.from_numpy(levels[0].astype(numpy.float32)) / 65535)
    assert torch.equal(image[..., 0], image[..., 2])


def test_recorded_rotation_is_applied(folders):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image, _ = LoadImage().load_image(put(folders, "a.png", gradient(size=(5, 3)), exif=exif))
    assert image.shape == (1, 5, 3, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_frames_of_an_animation_become_a_batch(folders, name):
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 128, 255)]
    put(folders, name, frames[0], save_all=True, append_images=frames[1:], duration=50, **({"lossless": True} if "webp" in name else {}))
    image, mask = LoadImage().load_image(name)
    assert image.shape == (3, 4, 4, 3) and mask.shape[0] == 3
    assert image[:, 0, 0, 0].mul(255).round().tolist() == [0, 128, 255]


def test_pages_with_and_without_transparency_give_masks_of_one_size(folders):
    put(folders, "a.tiff", gradient("RGB"), save_all=True, append_images=[gradient("RGBA")])
    image, mask = LoadImage().load_image("a.tiff")
    assert image.shape == (2, 3, 5, 3) and mask.shape == (2, 3, 5)
    assert not mask[0].any() and mask[1].any()


def test_truncated_file_is_read_as_far_as_it_goes(folders):
    stream = io.BytesIO()
    Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)).save(stream, "JPEG")
    (folders / "input" / "a.jpg").write_bytes(stream.getvalue()[:-500])
    image, _ = LoadImage().load_image("a.jpg")
    assert image.shape == (1, 64, 64, 3)


def test_a_file_that_is_not_a_picture_is_named_in_the_error(folders):
    (folders / "input" / "a.png").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.png could not be read as a picture"):
        LoadImage().load_image("a.png")


def test_list_holds_the_pictures_of_the_input_folder(folders):
    put(folders, "b.png", gradient())
    put(folders, "a.webp", gradient())
    (folders / "input" / "notes.txt").write_text("x")
    (folders / "input" / "folder.png").mkdir()
    assert LoadImage.INPUT_TYPES()["required"]["image"] == (["a.webp", "b.png"], {"image_upload": True})


def test_change_is_seen_by_content_not_by_time(folders):
    name = put(folders, "a.png", gradient())
    before = LoadImage.IS_CHANGED(name)
    put(folders, "a.png", gradient())
    assert LoadImage.IS_CHANGED(name) == before
    put(folders, "a.png", gradient(size=(4, 4)))
    assert LoadImageMask.IS_CHANGED(name, "red") != before


@pytest.mark.parametrize("name", ["missing.png", "../secret.png", "/etc/hostname", "a\0.png"])
def test_names_that_are_absent_or_lead_out_are_refused(folders, name):
    gradient().save(folders / "secret.png")
    assert LoadImage.VALIDATE_INPUTS(name) == f"Invalid image file: {name}"


def test_annotated_name_reads_another_folder(folders):
    gradient().save(folders / "output" / "a.png")
    assert LoadImageOutput.VALIDATE_INPUTS("a.png [output]") is True
    assert LoadImageOutput().load_image("a.png [output]")[0].shape == (1, 3, 5, 3)


@pytest.mark.parametrize("channel, index", [("red", 0), ("green", 1), ("blue", 2)])
def test_mask_from_a_colour_channel(folders, channel, index):
    name = put(folders, "a.png", gradient("RGBA"))
    assert torch.equal(LoadImageMask().load_image_mask(name, channel)[0], LoadImage().load_image(name)[0][..., index])


def test_mask_from_alpha(folders):
    name = put(folders, "a.png", gradient("RGBA"))
    assert torch.equal(LoadImageMask().load_image_mask(name, "alpha")[0], LoadImage().load_image(name)[1])


def test_animated_png_chunk_is_key_nul_json_after_the_picture(folders):
    path = folders / "a.png"
    frames = [Image.new("RGB", (2, 2), (shade, 0, 0)) for shade in (0, 255)]
    frames[0].save(path, save_all=True, append_images=frames[1:], pnginfo=image_writing.animated_png_metadata({"prompt": '{"a": 1}'}))
    content = path.read_bytes()
    assert b'comfprompt\0{"a": 1}' in content
    assert content.index(b"comf") > content.index(b"IDAT")


def test_exif_holds_prompt_and_keys_in_their_tags():
    exif = image_writing.exif_metadata({"prompt": "1", "workflow": "2", "other": "3"}, Image.new("RGB", (1, 1)))
    assert (exif[0x0110], exif[0x010F], exif[0x010E]) == ("prompt:1", "workflow:2", "other:3")


@pytest.mark.parametrize("key", ["\ud83d", "工作流"])
def test_names_of_metadata_that_png_lacks_do_not_fail_the_picture(tmp_path, key):
    texts = {key: '"x"', "prompt": "{}"}
    path = tmp_path / "x.png"
    Image.new("RGB", (1, 1)).save(path, pnginfo=image_writing.png_metadata(texts))
    with Image.open(path) as opened:
        assert opened.text == {"?" * len(key): '"x"', "prompt": "{}"}
    assert image_writing.animated_png_metadata(texts) is not None
