"""A window: some frames of a latent, and of the further latents that are sampled with it; and conditioning cut to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class ContextWindowABC:
    """What handlers of windows have in common."""

    def get_tensor(self, full: torch.Tensor) -> torch.Tensor:
        """The part of *full* that is in the window."""
        raise NotImplementedError(f"{type(self).__name__} must define get_tensor()")

    def add_window(self, full: torch.Tensor, to_add: torch.Tensor) -> torch.Tensor:
        """*full*, changed in place: *to_add* is added where the window is."""
        raise NotImplementedError(f"{type(self).__name__} must define add_window()")


class IndexListContextWindow(ContextWindowABC):
    """The frames *index_list* along the dimension *dim*, of *total_frames*.

    ``modality_windows`` holds the windows of further latents by number, from 1 on. ``causal_anchor_index`` is the frame before the window
    that is sampled with it and thrown away, ``guide_…`` tells of frames behind the video that belong to the window.
    """

    causal_anchor_index: int | None = None

    def __init__(
        self,
        index_list: list[int],
        dim: int = 0,
        total_frames: int = 0,
        modality_windows: Mapping[int, IndexListContextWindow] | None = None,
        context_overlap: int = 0,
    ) -> None:
        self.index_list, self.dim, self.total_frames = index_list, dim, total_frames
        self.context_length, self.context_overlap = len(index_list), context_overlap
        self.center_ratio = (min(index_list) + max(index_list)) / (2 * total_frames)
        self.modality_windows = modality_windows
        self.guide_frames_indices: list[int] = []
        self.guide_overlap_info: list[tuple[int, int]] = []
        self.guide_kf_local_positions: list[int] = []
        self.guide_downscale_factors: list[int] = []

    def has_anchor(self) -> bool:
        """Whether the frame before the window is sampled with it."""
        return self.causal_anchor_index is not None and self.causal_anchor_index >= 0

    def get_tensor(
        self, full: torch.Tensor, device: Any = None, dim: int | None = None, retain_index_list: Sequence[int] = ()
    ) -> torch.Tensor:
        """The frames of *full* along *dim* (None: the window's), on *device*; at the places *retain_index_list* those of *full* itself.

        A batch of one stands for all.
        """
        axis = self.dim if dim is None else dim
        if axis == 0 and len(full) == 1:
            return full
        frames = [self.causal_anchor_index, *self.index_list] if self.has_anchor() else self.index_list
        window = full[_at(axis, frames)]
        if retain_index_list:
            kept = _at(axis, list(retain_index_list))
            window[kept] = full[kept]
        return window.to(device)

    def add_window(self, full: torch.Tensor, to_add: torch.Tensor, dim: int | None = None) -> torch.Tensor:
        """*full*, changed in place: *to_add* is added to the frames along *dim* (None: the window's)."""
        full[_at(self.dim if dim is None else dim, self.index_list)] += to_add
        return full

    def get_region_index(self, num_regions: int) -> int:
        """Which of *num_regions* equal parts of the video the middle of the window is in."""
        return min(max(int(self.center_ratio * num_regions), 0), num_regions - 1)

    def get_window_for_modality(self, modality_idx: int) -> IndexListContextWindow:
        """The window of the latent of that number; 0: this one."""
        return self if modality_idx == 0 else (self.modality_windows or {})[modality_idx]


def _at(axis: int, places: Any) -> tuple[Any, ...]:
    return (*[slice(None)] * axis, places)


def slice_cond(
    cond_value: Any,
    window: IndexListContextWindow,
    x_in: torch.Tensor,
    device: Any,
    temporal_dim: int,
    temporal_scale: int = 1,
    temporal_offset: int = 0,
    retain_index_list: Sequence[int] = (),
) -> Any:
    """*cond_value* (of :mod:`comfy.conds`) with the frames along *temporal_dim* that belong to *window* of *x_in*; None where it has none.

    *temporal_scale*: how many frames it has for each latent one. *temporal_offset*: for how many latent frames at the beginning it has
    none.
    """
    tensor = getattr(cond_value, "cond", None)
    if not isinstance(tensor, torch.Tensor) or temporal_dim >= tensor.ndim:
        return None
    size = tensor.size(temporal_dim)
    if temporal_scale == 1 and size != x_in.size(window.dim) - temporal_offset:
        return None
    if temporal_scale == 1 and temporal_offset == 0:
        return cond_value._copy_with(window.get_tensor(tensor, device, dim=temporal_dim, retain_index_list=retain_index_list))
    passed_over = max(0, temporal_offset - window.has_anchor())  # the frame before the window takes the place of one
    frames = [frame - temporal_offset for frame in window.index_list[passed_over:]] if temporal_offset else window.index_list
    each = range(temporal_scale)
    places = [frame * temporal_scale + part for frame in frames if frame >= 0 for part in each if frame * temporal_scale + part < size]
    return cond_value._copy_with(tensor[_at(temporal_dim, places)].to(device)) if places else None


def compute_guide_overlap(
    guide_entries: Sequence[Mapping[str, Any]], keyframe_idxs: torch.Tensor, temporal_downscale_ratio: int, window_index_list: Sequence[int]
) -> tuple[list[int], list[tuple[int, int]], list[int], int]:
    """Which frames of the guides behind the video are of times in the window: (their places behind the video, (guide, number of its frames)
    pairs, their places in the window, how many).

    *guide_entries* hold ``latent_shape`` and ``pre_filter_count`` (tokens); *keyframe_idxs* (B x 3 x tokens x 2) says at which frame of the
    video, in pixels, each begins.
    """
    local = {frame: place for place, frame in reversed(list(enumerate(window_index_list)))}
    places: list[int] = []
    counts: list[tuple[int, int]] = []
    at: list[int] = []
    before, token = 0, 0
    for number, entry in enumerate(guide_entries):
        first = -(-int(keyframe_idxs[0, 0, token, 0].item()) // temporal_downscale_ratio)
        length = entry["latent_shape"][0]
        own = [offset for offset in range(length) if first + offset in local]
        places += [before + offset for offset in own]
        at += [local[first + offset] for offset in own]
        if own:
            counts.append((number, len(own)))
        before, token = before + length, token + entry["pre_filter_count"]
    return places, counts, at, len(places)


def match_weights_to_dim(weights: Any, x_in: torch.Tensor, dim: int, device: Any = None) -> torch.Tensor:
    """*weights*, one per frame, so that they broadcast along *dim* of *x_in*."""
    shape = [1] * x_in.ndim
    shape[dim] = -1
    return torch.as_tensor(weights, dtype=torch.float32).to(device=device).view(shape)


def get_shape_for_dim(x_in: torch.Tensor, dim: int) -> list[int]:
    """The shape of one number per frame along *dim* of *x_in*."""
    return [length if axis == dim else 1 for axis, length in enumerate(x_in.shape)]
