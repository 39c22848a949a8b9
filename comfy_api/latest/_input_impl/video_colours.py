"""The colour spaces of videos: how each is marked in a stream, and which one a stream's marks mean.

The numbers are those of ITU-T H.273, which FFmpeg uses.
"""

from dataclasses import dataclass
from typing import Any, Final

_IEC_61966_2_1, _BT709_TRANSFER, _PQ, _HLG = 13, 1, 16, 18
_BT709, _BT2020 = 1, 9
_LIMITED_RANGE = 1
_FIELDS: Final = ("color_primaries", "color_trc", "colorspace", "color_range")


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """A colour space that videos are saved in: its *name* for users, transfer function, and primaries, which also name the YUV matrix."""

    name: str
    transfer: int
    primaries: int

    @property
    def is_hdr(self) -> bool:
        """Whether it needs 10 bits per component."""
        return self.primaries == _BT2020

    def mark(self, target: Any) -> None:
        """Mark a frame or codec context as being in this space, with limited range. Pixels are not changed."""
        for field, value in zip(_FIELDS, (self.primaries, self.transfer, self.primaries, _LIMITED_RANGE), strict=True):
            setattr(target, field, value)


SRGB: Final = ColourSpace("sRGB", _IEC_61966_2_1, _BT709)
SPACES: Final = {one.name: one for one in (SRGB, ColourSpace("HDR", _HLG, _BT2020), ColourSpace("HDR PQ", _PQ, _BT2020))}
_BY_TRANSFER: Final = {one.transfer: one for one in SPACES.values()} | {_BT709_TRANSFER: SRGB}


def colour_space(name: str | None) -> ColourSpace | None:
    """The space called *name*; None for None. Raises ``ValueError`` for an unknown name."""
    if name is None:
        return None
    if name not in SPACES:
        raise ValueError(f"videos are not saved in the color space {name!r}; choose one of {', '.join(SPACES)}")
    return SPACES[name]


def space_of_stream(stream: Any) -> ColourSpace | None:
    """The space that a video stream's transfer function means; None if it is not marked, has another one, or there is no stream."""
    return None if stream is None else _BY_TRANSFER.get(int(stream.color_trc or 0))


def copy_marks(source: Any, target: Any) -> None:
    """Mark *target* (frame or codec context) as *source* is."""
    for field in _FIELDS:
        setattr(target, field, getattr(source, field))
