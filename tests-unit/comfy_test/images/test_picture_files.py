"""Picture files from elsewhere: bits, transparent colours, orientation, size, damage."""

import os
import random
import struct
import zlib

import numpy
import pytest
import torch
from PIL import Image

from comfy.images import picture_files
from comfy.images.deep_colours import turned
from comfy.images.picture_files import PictureRefused, eight_bit, open_picture, orientation, reading_picture, upright
from comfy_extras import image_reading
from comfy_extras.image_reading import read_image

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, transparent=None, exif=None):
    """A PNG file's bytes; *rows* are those of the file, unfiltered."""
    found = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    found += chunk(b"eXIf", exif) if exif else b""
    found += chunk(b"tRNS", b"".join(struct.pack(">H", level) for level in transparent)) if transparent else b""
    return found + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))) + chunk(b"IEND", b"")


def words(*values):
    return struct.pack(f">{len(values)}H", *values)


def read(tmp_path, content, name="a.png"):
    (tmp_path / name).write_bytes(content)
    return read_image(str(tmp_path / name))


@pytest.mark.parametrize("colour, channels", [(RGB, 3), (RGBA, 4), (GREY_ALPHA, 2)])
def test_sixteen_bits_per_channel_are_kept(tmp_path, colour, channels):
    levels = numpy.array([0, 257, 32768, 65535, 128, 384, 1, 65534, 12345, 54321, 2, 3], dtype=numpy.float32)[: 2 * channels]
    pictures, masks = read(tmp_path, png(2, 1, 16, colour, [words(*levels.astype(int))]))
    wanted = torch.from_numpy(levels.reshape(1, 1, 2, channels) / 65535)
    colours = wanted[..., :1].expand(-1, -1, -1, 3) if channels == 2 else wanted[..., :3]
    assert torch.equal(pictures, colours) and pictures.dtype == torch.float32
    if channels != 3:
        assert torch.equal(masks, 1 - wanted[..., -1])


@pytest.mark.parametrize(
    "depth, colour, rows, transparent, mask",
    [
        (16, GREY, [words(5, 300, 5, 65535)], [300], [0, 1, 0, 0]),
        (16, RGB, [words(1, 2, 3, 1, 2, 4)], [1, 2, 3], [1, 0]),
        (8, GREY, [bytes([9, 7, 9])], [7], [0, 1, 0]),
        (8, RGB, [bytes([1, 2, 3, 1, 2, 4])], [1, 2, 3], [1, 0]),
        (4, GREY, [bytes([0x3A])], [3], [1, 0]),
        (2, GREY, [bytes([0b00011011])], [2], [0, 0, 1, 0]),
        (1, GREY, [bytes([0b01000000])], [1], [0, 1]),
    ],
)
def test_the_transparent_colour_of_a_file_becomes_its_mask(tmp_path, depth, colour, rows, transparent, mask):
    _, masks = read(tmp_path, png(len(mask), 1, depth, colour, rows, transparent))
    assert masks[0, 0].tolist() == mask


def test_a_file_without_transparency_has_the_empty_mask(tmp_path):
    assert read(tmp_path, png(1, 1, 16, RGB, [words(1, 2, 3)]))[1].shape == (1, 64, 64)


@pytest.mark.parametrize("number", range(1, 9))
def test_arrays_are_turned_as_pillow_turns_pictures(number):
    pixels = numpy.arange(24, dtype=numpy.uint8).reshape(2, 4, 3)
    picture = Image.fromarray(pixels)
    picture.getexif()[0x0112] = number
    assert orientation(picture) == number
    assert numpy.array_equal(turned(pixels, number), numpy.asarray(upright(picture)))


def test_deep_pictures_are_turned_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = png(2, 1, 16, RGB, [words(0, 0, 0, 65535, 65535, 65535)], exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    assert read(tmp_path, content)[0].shape == (1, 2, 1, 3)


def test_without_pyav_deep_pictures_are_read_with_eight_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("comfy.images.deep_colours.importlib.util.find_spec", lambda name: None)
    pictures, _ = read(tmp_path, png(1, 1, 16, RGB, [words(0, 32768, 65535)]))
    assert pictures.flatten().tolist() == pytest.approx([0, 128 / 255, 1])


def test_a_picture_over_pillows_own_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(tmp_path, png(8, 8, 8, GREY, [bytes(8)] * 8))[0].shape == (1, 8, 8, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_picture_over_our_limit_or_the_free_memory_is_refused_by_name(tmp_path, monkeypatch):
    content = png(8, 8, 8, GREY, [bytes(8)] * 8)
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 63)
    with pytest.raises(ValueError, match=r"a\.png .* 8x8 pixels; at most 63"):
        read(tmp_path, content)
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 64)
    monkeypatch.setattr(image_reading, "BYTES_PER_PIXEL", 1 << 50)
    with pytest.raises(ValueError, match=r"a\.png .* of the memory that is free"):
        read(tmp_path, content)


def test_the_frames_of_an_animation_are_counted_before_one_is_decoded(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (64, 64), (8 * number, 0, 0)) for number in range(30)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    free_bytes = 64 * 64 * image_reading.BYTES_PER_PIXEL * 20
    monkeypatch.setattr(picture_files.HostMemory, "available_bytes", lambda self: free_bytes)
    monkeypatch.setattr(image_reading.pil_image_sequence, "Iterator", None)
    with pytest.raises(ValueError, match=r"a\.gif .*30 frames.* make it smaller"):
        read_image(str(tmp_path / "a.gif"))


@pytest.mark.parametrize("name", ["pipe.png", "folder.png"])
def test_anything_but_a_regular_file_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        read_image(str(tmp_path / name))


def test_formats_for_which_pillow_starts_a_program_are_refused(tmp_path):
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ValueError, match="format EPS"):
        read_image(str(tmp_path / "a.eps"))


@pytest.mark.parametrize(
    "mode, levels, wanted",
    [("F", [0.0, 0.5, 2.0], [0, 127, 255]), ("I", [0, 65535, 32768], [0, 255, 127]), ("I;16", [0, 256, 65535], [0, 1, 255])],
)
def test_previews_of_deep_grey_scale_it(mode, levels, wanted):
    dtype = {"F": numpy.float32, "I": numpy.int32, "I;16": numpy.uint16}[mode]
    shown = eight_bit(Image.fromarray(numpy.array([levels], dtype=dtype)))
    assert shown.mode == "L" and numpy.asarray(shown)[0].tolist() == wanted


@pytest.mark.parametrize("files", [400, pytest.param(2000, marks=pytest.mark.long)])
def test_mutated_files_are_read_or_refused_by_name(tmp_path, files):
    dice = random.Random(7)
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = [dice.randbytes(6 * 8) for _ in range(8)]
    seeds = [png(8, 8, 16, RGB, rows), png(8, 8, 8, GREY, [row[:8] for row in rows], [3], exif.tobytes().removeprefix(b"Exif\0\0"))]
    for kind in ("JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        path = tmp_path / f"seed.{kind}"
        Image.fromarray(numpy.frombuffer(b"".join(rows), dtype=numpy.uint8).reshape(8, 16, 3)).save(path, format=kind, exif=exif)
        seeds.append(path.read_bytes())
    read_ones = 0
    for number in range(files):
        content = bytearray(seeds[number % len(seeds)])
        for _ in range(dice.randint(1, 4)):
            position = dice.randrange(len(content))
            content[position : position + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        path = tmp_path / "mutated"
        path.write_bytes(content)
        try:
            read_ones += read_image(str(path))[0].ndim == 4
        except ValueError as error:
            assert "mutated" in str(error)
        for action in (eight_bit, upright):
            try:
                with open_picture(str(path)) as picture, reading_picture():
                    action(picture)
            except PictureRefused as error:
                assert str(error)
    assert read_ones > files // 20


@pytest.mark.parametrize(
    "error", [OSError(28, "no space left on device"), ValueError("unknown format"), FileNotFoundError("the output folder")]
)
def test_an_error_after_reading_is_not_taken_for_a_bad_picture(tmp_path, error):
    path = tmp_path / "good.png"
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(type(error)) as raised, open_picture(str(path)) as picture:
        raise error
    assert raised.value is error and not isinstance(raised.value, PictureRefused)
    with pytest.raises(ValueError, match="Operation on closed image"):
        picture.getpixel((0, 0))
