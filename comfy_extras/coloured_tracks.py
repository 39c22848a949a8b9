"""Tracks of things in videos (what ``SAM3_VideoTrack`` gives) as masks, and as pictures in which each thing has a colour.

A track is a dict: ``packed_masks`` (frames x things x side x side/8 bits, or None where there is nothing), ``n_frames``, ``scores``, and
``orig_size``, height and width of the video.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io

if TYPE_CHECKING:
    from torch import Tensor

management = lazy_module("comfy.model_management")
masks_in_bits = lazy_module("comfy.ldm.sam3.masks")
torch = lazy_module("torch")

Track = dict[str, Any]
TrackType = io.Custom("SAM3_TRACK_DATA")
# The colours that SCAIL-2 was trained with, in the order in which things get them.
COLOURS = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0))
ORDERS = ("none", "left_to_right", "area")


def masks_of(track: Track) -> Tensor | None:
    """Frames x things x side x side, bool; None where there is nothing."""
    packed = track["packed_masks"]
    return None if packed is None or not packed.shape[1] else masks_in_bits.unpack_masks(packed)


def numbers_in(text: str, count: int) -> list[int]:
    """The numbers below *count* in *text* ("0, 2"), all of them for an empty one; what is no such number is passed over."""
    if not text.strip():
        return list(range(count))
    return [int(part) for part in map(str.strip, text.split(",")) if part.isdigit() and int(part) < count]


def only(track: Track, things: list[int]) -> Track:
    """*track* with these things alone, in this order."""
    packed, scores = track["packed_masks"], track.get("scores", [])
    packed = packed[:, things] if packed is not None and things else None
    return {**track, "packed_masks": packed, "scores": [scores[one] for one in things if one < len(scores)]}


def ordered(track: Track, order: str) -> Track:
    """*track* with its things in one of ``ORDERS``: those that appear first come first, and of these those on the left, or the largest."""
    masks = masks_of(track)
    if masks is None or order == "none":
        return track
    frames, things, _, width = masks.shape
    areas = masks.sum(dim=(2, 3))
    first = torch.where(areas > 0, torch.arange(frames, device=masks.device)[:, None], frames).amin(dim=0)
    then = masks[first.clamp(max=frames - 1), torch.arange(things, device=masks.device)]
    largest = then.sum(dim=(1, 2))
    middles = (then.sum(dim=1) * torch.arange(width, device=masks.device)).sum(dim=1) / largest.clamp(min=1)
    seconds = (middles if order == "left_to_right" else -largest).tolist()
    return only(track, sorted(range(things), key=lambda one: (int(first[one]), seconds[one])))


def coloured(track: Track, background: float) -> Tensor:
    """Frames x height x width x 3: each thing in its colour, what lies in front first, on a grey of *background*."""
    height, width = track["orig_size"]
    masks = masks_of(track)
    if masks is None:
        packed = track["packed_masks"]
        return _grey(track.get("n_frames", 1) if packed is None else len(packed), height, width, background)
    picture = _grey(len(masks), height, width, background)
    masks = torch.nn.functional.interpolate(masks.to(picture), size=(height, width), mode="nearest") > 0.5
    colours = picture.new_tensor(COLOURS).repeat(-(-masks.shape[1] // len(COLOURS)), 1)
    inside = colours[masks.to(torch.uint8).argmax(dim=1)]
    return torch.where(masks.any(dim=1)[..., None], inside, picture)


def coloured_mask(mask: Tensor, background: float) -> Tensor:
    """The same of a mask (height x width, or a batch of them), all of one thing."""
    mask = mask.reshape(-1, *mask.shape[-2:]).to(management.intermediate_device())
    picture = _grey(len(mask), mask.shape[1], mask.shape[2], background)
    return torch.where((mask > 0.5)[..., None], picture.new_tensor(COLOURS[0]), picture)


def _grey(frames: int, height: int, width: int, level: float) -> Tensor:
    made = {"device": management.intermediate_device(), "dtype": management.intermediate_dtype()}
    return torch.full((frames, height, width, 3), level, **made)
