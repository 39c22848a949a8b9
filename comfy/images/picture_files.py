"""Opens picture files for nodes, previews and the mask editor, with the same limits and the same tolerance for damage."""

from __future__ import annotations

import contextlib
import importlib
import struct
import threading
from collections.abc import Iterator
from typing import IO, Any

from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.host_memory import HostMemory
from comfy.units import MIB
from utils.regular_files import open_regular

pil_image = lazy_module("PIL.Image")
pil_image_ops = lazy_module("PIL.ImageOps")

MAX_PIXELS = 16384 * 16384
# Decoded, turned upright and converted: what stands in memory at once, four channels of a byte each.
BYTES_PER_PIXEL = 12
# The share of the RAM that is free which one picture may take; the rest is for what is computed from it.
SHARE_OF_FREE_RAM = 0.75
# Pictures with more are worked on one at a time, so that several do not take together what each may take alone.
LARGE_PIXELS = 16_000_000
# Formats that Pillow decodes by starting another program on the file.
REFUSED_FORMATS = frozenset({"EPS", "WMF"})
RAW_MODES = "raw_modes"  # in ``PIL.Image.info``: how the pixels lie in the file, which Pillow forgets when it decodes them
_one_large_picture = threading.RLock()
_settings = threading.Lock()  # Pillow's limits are settings of its modules


class PictureRefused(ValueError):
    """A file cannot be read as a picture; the message says why. The caller adds the name that its user knows the file by."""


@contextlib.contextmanager
def open_picture(source: str | IO[bytes]) -> Iterator[Any]:
    """The ``PIL.Image`` in *source*, a path or an open file, with its first frame decoded; it is closed at the end of the block.

    A truncated file is read as far as it goes. Raises :class:`PictureRefused` for what is not a picture in a regular file, has more
    than :data:`MAX_PIXELS` pixels or more than fit into the RAM that is free, and ``FileNotFoundError``. Errors of the block pass as
    they are: what in it still reads the file, such as further frames or EXIF data, belongs in :func:`reading_picture`.
    """
    with contextlib.ExitStack() as opened:
        with reading_picture():
            picture = _opened(opened.enter_context(open_regular(source)) if isinstance(source, str) else source)
            opened.callback(picture.close)
            if picture.format in REFUSED_FORMATS:
                raise PictureRefused(f"pictures in the format {picture.format} are not read; convert it to PNG")
            pixels = picture.width * picture.height
            if pixels > MAX_PIXELS:
                raise PictureRefused(f"the picture has {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are decoded")
            if pixels > LARGE_PIXELS:
                opened.enter_context(_one_large_picture)
            check_fits(picture, pixels * BYTES_PER_PIXEL)
            picture.info[RAW_MODES] = _raw_modes(picture)
            _load(picture)
        yield picture


@contextlib.contextmanager
def reading_picture() -> Iterator[None]:
    """Turn what Pillow raises on a damaged file into :class:`PictureRefused`. The block must only read, not encode or write."""
    try:
        yield
    except (FileNotFoundError, PictureRefused):
        raise
    except pil_image.DecompressionBombError as error:
        raise PictureRefused(f"the picture is too large to decode: {error}") from None
    except pil_image.UnidentifiedImageError:
        raise PictureRefused("the file is not an image in a format that is known here") from None
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, MemoryError, struct.error) as error:
        raise PictureRefused(f"the file is not an image that can be decoded ({error or type(error).__name__})") from error


def check_fits(picture: Any, needed_bytes: int) -> None:
    """Raise :class:`PictureRefused` when decoding *picture* takes *needed_bytes*, and that is more than it may take of the free RAM."""
    allowed_bytes = int(HostMemory().available_bytes() * SHARE_OF_FREE_RAM)
    if needed_bytes > allowed_bytes:
        frames = getattr(picture, "n_frames", 1)
        raise PictureRefused(
            f"decoding it ({picture.width}x{picture.height} pixels, {frames} frames) takes {needed_bytes // MIB:,} MiB, and it may take "
            f"{allowed_bytes // MIB:,} MiB of the memory that is free; make it smaller"
        )


def upright(picture: Any) -> Any:
    """*picture* rotated and mirrored as its EXIF orientation says; *picture* itself where there is nothing to turn."""
    return pil_image_ops.exif_transpose(picture)


def orientation(picture: Any) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where the file has none or an unknown one."""
    value = picture.getexif().get(0x0112, 1)
    return value if value in range(1, 9) else 1


def eight_bit(picture: Any) -> Any:
    """*picture*, or an 8-bit greyscale copy if its pixels are 16-bit or 32-bit integers or floats. Scales where Pillow would clip."""
    if picture.mode.startswith("I;16"):
        return picture.point(lambda value: value * (1 / 256)).convert("L")
    if picture.mode not in ("I", "F"):
        return picture
    numpy = importlib.import_module("numpy")
    levels = numpy.asarray(picture, dtype=numpy.float64)
    full = 1.0 if picture.mode == "F" else 65535.0 if levels.max(initial=0.0) <= 65535.0 else 2147483647.0
    return pil_image.fromarray((numpy.nan_to_num(levels / full).clip(0.0, 1.0) * 255.0).astype(numpy.uint8))


def transparent_level(picture: Any) -> Any:
    """The colour that a file without an alpha channel marks as transparent (tRNS): a number, or one per band; None without such a colour.

    It is scaled like the pixels: where Pillow has widened pixels of 2 or 4 bits to 8, it leaves this colour in the file's own bits.
    """
    level = picture.info.get("transparency")
    if isinstance(level, bytes) or level is None or picture.mode == "P":
        return None
    bits = {"L;2": 2, "L;4": 4}.get(next(iter(picture.info.get(RAW_MODES, ())), ""))
    return level if bits is None or not isinstance(level, int) else level * 255 // (2**bits - 1)


def _raw_modes(picture: Any) -> tuple[str, ...]:
    arguments = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in getattr(picture, "tile", ()) if len(tile) > 3]
    return tuple(str(part) for several in arguments for part in several)


def _opened(source: IO[bytes]) -> Any:
    """Open *source* whatever its size; the caller checks that."""
    with _settings, _set("PIL.Image", "MAX_IMAGE_PIXELS", None):
        return pil_image.open(source)


def _load(picture: Any) -> None:
    """Decode the current frame; the missing part of a truncated one stays empty."""
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError):
        with _settings, _set("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES", True):
            picture.load()


@contextlib.contextmanager
def _set(module_name: str, name: str, value: Any) -> Iterator[None]:
    module = importlib.import_module(module_name)
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
