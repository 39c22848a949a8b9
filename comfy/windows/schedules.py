"""Which frames are sampled together, and how much each counts: lists of windows for every step, and weights. Needs no torch at import."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

SMALLEST_WEIGHT = 1e-37  # of a frame at the edge of a window; it is divided by
Window = list[int]


class WindowSettings(Protocol):
    """What schedules ask of the handler."""

    context_length: int
    context_overlap: int
    context_stride: int
    closed_loop: bool
    _step: int


@dataclass
class ContextSchedule:
    """A schedule and its name. ``func`` is called with the number of frames, the handler and the model options."""

    name: str
    func: Callable[..., list[Window]]


@dataclass
class ContextFuseMethod:
    """A way to weigh frames and its name. ``func`` is called with the length of a window and keywords."""

    name: str
    func: Callable[..., Any]


class ContextSchedules:
    """The names of the schedules."""

    UNIFORM_LOOPED = "looped_uniform"
    UNIFORM_STANDARD = "standard_uniform"
    STATIC_STANDARD = "standard_static"
    BATCHED = "batched"


class ContextFuseMethods:
    """The names of the ways to weigh."""

    FLAT = "flat"
    PYRAMID = "pyramid"
    RELATIVE = "relative"
    OVERLAP_LINEAR = "overlap-linear"

    LIST = [PYRAMID, FLAT, OVERLAP_LINEAR]
    LIST_STATIC = [PYRAMID, RELATIVE, FLAT, OVERLAP_LINEAR]


def ordered_halving(val: int) -> float:
    """A place in 0…1 for the step *val*, such that any number of steps spread evenly: its binary digits, mirrored at the point."""
    place, worth = 0.0, 0.5
    while val:
        place, worth, val = place + worth * (val & 1), worth / 2, val >> 1
    return place


def _spread(num_frames: int, handler: WindowSettings, left_out: int) -> list[Window]:
    """Windows around a circle of frames, those of each stride behind each other, moved along at every step; *left_out* frames before the
    end begin none.
    """
    length, place = handler.context_length, ordered_halving(handler._step)
    begin = round(num_frames * place)
    windows = []
    for doubling in range(min(handler.context_stride, math.ceil(math.log2(num_frames / length)) + 1)):
        stride = 1 << doubling
        starts = range(int(place * stride) + begin, num_frames + begin - left_out, length * stride - handler.context_overlap)
        windows += [[(start + stride * number) % num_frames for number in range(length)] for start in starts]
    return windows


def create_windows_uniform_looped(num_frames: int, handler: WindowSettings, model_options: Mapping[str, Any]) -> list[Window]:
    """Windows that may go on from the last frame to the first."""
    if num_frames < handler.context_length:
        return create_windows_default(num_frames, handler)
    return _spread(num_frames, handler, 0 if handler.closed_loop else handler.context_overlap)


def create_windows_uniform_standard(num_frames: int, handler: WindowSettings, model_options: Mapping[str, Any]) -> list[Window]:
    """The same, but that those which would do so end with the last frame; each once."""
    if num_frames <= handler.context_length:
        return create_windows_default(num_frames, handler)
    windows = _spread(num_frames, handler, handler.context_overlap)
    index = 0
    while index < len(windows):
        window = windows[index]
        rolls, place = does_window_roll_over(window, num_frames)
        if rolls:
            first = window[place]
            shift_window_to_end(window, num_frames)
            if max(window) >= num_frames:  # wider than the video
                start = min(first, num_frames - handler.context_length)
                window[:] = range(start, start + handler.context_length)
            elif first not in windows[(index + 1) % len(windows)]:
                windows.insert(index + 1, list(range(first, first + handler.context_length)))
        index += 1
    return [window for index, window in enumerate(windows) if window not in windows[:index]]


def create_windows_static_standard(num_frames: int, handler: WindowSettings, model_options: Mapping[str, Any]) -> list[Window]:
    """The same windows at every step, the last one moved back to end with the last frame."""
    length = handler.context_length
    if num_frames <= length:
        return create_windows_default(num_frames, handler)
    starts = [*range(0, num_frames - length, length - handler.context_overlap), num_frames - length]
    return [list(range(start, start + length)) for start in starts]


def create_windows_batched(num_frames: int, handler: WindowSettings, model_options: Mapping[str, Any]) -> list[Window]:
    """Windows that share no frame; the last may be shorter."""
    length = max(1, handler.context_length)
    return [list(range(start, min(start + length, num_frames))) for start in range(0, num_frames, length)]


def create_windows_default(num_frames: int, handler: WindowSettings | None = None) -> list[Window]:
    """One window of all frames."""
    return [list(range(num_frames))]


def does_window_roll_over(window: Sequence[int], num_frames: int) -> tuple[bool, int]:
    """Whether *window* goes on from the last frame to an earlier one, and where in it (else -1)."""
    places = [frame % num_frames for frame in window]
    found = next((index for index in range(1, len(places)) if places[index] < places[index - 1]), -1)
    return found >= 0, found


def shift_window_to_start(window: Window, num_frames: int) -> None:
    """Move *window*, in place, to begin with the first frame."""
    first = window[0]
    window[:] = [(frame - first) % num_frames for frame in window]


def shift_window_to_end(window: Window, num_frames: int) -> None:
    """Move *window*, in place, to end with the last frame."""
    shift_window_to_start(window, num_frames)
    window[:] = [frame + num_frames - 1 - window[-1] for frame in window]


def get_missing_indexes(windows: Sequence[Sequence[int]], num_frames: int) -> list[int]:
    """The frames that are in no window."""
    return sorted(set(range(num_frames)) - {frame for window in windows for frame in window})


CONTEXT_MAPPING = {
    ContextSchedules.UNIFORM_LOOPED: create_windows_uniform_looped,
    ContextSchedules.UNIFORM_STANDARD: create_windows_uniform_standard,
    ContextSchedules.STATIC_STANDARD: create_windows_static_standard,
    ContextSchedules.BATCHED: create_windows_batched,
}


def get_matching_context_schedule(context_schedule: str) -> ContextSchedule:
    """The schedule of that name. Raises ``ValueError``."""
    if context_schedule not in CONTEXT_MAPPING:
        raise ValueError(f"unknown context schedule {context_schedule!r}; known: {', '.join(CONTEXT_MAPPING)}")
    return ContextSchedule(context_schedule, CONTEXT_MAPPING[context_schedule])


def create_weights_flat(length: int, **kwargs: Any) -> list[float]:
    """All frames count alike."""
    return [1.0] * length


def create_weights_pyramid(length: int, **kwargs: Any) -> list[int]:
    """Frames count more the farther they are from the edges of their window."""
    return [min(place, length + 1 - place) for place in range(1, length + 1)]


def create_weights_overlap_linear(length: int, full_length: int, idxs: Sequence[int], context_overlap: int, **kwargs: Any) -> Tensor:
    """Only the frames that windows share count less, the less the nearer to the edge; not at the beginning and the end of the video."""
    weights = torch.ones(length)
    if min(idxs) > 0 and context_overlap:
        weights[:context_overlap] = torch.linspace(SMALLEST_WEIGHT, 1, context_overlap)
    if max(idxs) < full_length - 1 and context_overlap:
        weights[-context_overlap:] = torch.linspace(1, SMALLEST_WEIGHT, context_overlap)
    return weights


FUSE_MAPPING: dict[str, Callable[..., Any]] = {
    ContextFuseMethods.FLAT: create_weights_flat,
    ContextFuseMethods.PYRAMID: create_weights_pyramid,
    ContextFuseMethods.RELATIVE: create_weights_pyramid,
    ContextFuseMethods.OVERLAP_LINEAR: create_weights_overlap_linear,
}


def get_matching_fuse_method(fuse_method: str) -> ContextFuseMethod:
    """The way to weigh of that name. Raises ``ValueError``."""
    if fuse_method not in FUSE_MAPPING:
        raise ValueError(f"unknown way to fuse windows {fuse_method!r}; known: {', '.join(FUSE_MAPPING)}")
    return ContextFuseMethod(fuse_method, FUSE_MAPPING[fuse_method])


def get_context_weights(
    length: int, full_length: int, idxs: Sequence[int], handler: Any, sigma: Any = None, context_overlap: int | None = None
) -> Any:
    """How much each frame of the window *idxs* of *length* frames counts."""
    overlap = handler.context_overlap if context_overlap is None else context_overlap
    return handler.fuse_method.func(length, sigma=sigma, handler=handler, full_length=full_length, idxs=idxs, context_overlap=overlap)


def apply_freenoise(noise: Tensor, dim: int, context_length: int, context_overlap: int, seed: int) -> Tensor:
    """*noise*, changed in place: what comes after the first window is the noise before it, shuffled, as in FreeNoise (arXiv:2310.15169)."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    frames, fresh = noise.shape[dim], context_length - context_overlap
    for start in range(0, frames - context_length, fresh):
        place = start + context_length
        count = min(fresh, frames - place)
        if count <= 0:
            break
        picked = torch.randperm(count, generator=generator, device="cpu") + start
        noise.narrow(dim, place, count).copy_(noise.index_select(dim, picked.to(noise.device)))
    return noise
