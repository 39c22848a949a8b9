"""The latents of one step, taken apart, and the parts of them that are in a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import comfy.conds
from comfy.windows.window import IndexListContextWindow, compute_guide_overlap


@dataclass
class WindowingState:
    """Latents by number (the video's first), without guides behind the video, which have lists of their own: None where there are none."""

    latents: list[torch.Tensor]
    guide_latents: list[torch.Tensor | None]
    guide_entries: list[Any]
    keyframe_idxs: list[Any]
    latent_shapes: list[Any] | None
    dim: int = 0
    is_multimodal: bool = False
    temporal_downscale_ratio: int = 1

    def prepare_window(self, window: IndexListContextWindow, model: Any) -> IndexListContextWindow:
        """*window* with those of further latents, of which *model* says which times they share. Raises ``NotImplementedError`` for a model
        that does not.
        """
        if not self.is_multimodal or self.latent_shapes is None:
            return window
        video, whole = self.latents[0], self.latent_shapes[0][self.dim]
        shapes = [video.shape, *self.latent_shapes[1:]]
        if not hasattr(model, "map_context_window_to_modalities"):
            raise NotImplementedError(
                f"{type(model).__name__} cannot be sampled in windows: it says not which sound belongs to which frame"
            )
        frames = model.map_context_window_to_modalities(window.index_list, shapes, self.dim)
        others = {}
        for number, latent in enumerate(self.latents[1:], 1):
            total = latent.shape[self.dim]
            overlap = max(0, round(window.context_overlap * (total / whole if whole > 0 else 1)))
            others[number] = IndexListContextWindow(frames[number], dim=self.dim, total_frames=total, context_overlap=overlap)
        return IndexListContextWindow(
            window.index_list, self.dim, video.shape[self.dim], modality_windows=others, context_overlap=window.context_overlap
        )

    def slice_for_window(
        self, window: IndexListContextWindow, retain_index_list: Sequence[int], device: Any = None
    ) -> tuple[list[torch.Tensor], list[int]]:
        """The parts of the latents in *window*, guides behind them, and the number of these."""
        parts, guides = [], []
        for number, latent in enumerate(self.latents):
            own = window.get_window_for_modality(number)
            part = own.get_tensor(latent, device, retain_index_list=retain_index_list if number == 0 else ())
            part, count = self._with_guides(part, own, number)
            parts.append(part)
            guides.append(count)
        return parts, guides

    def _with_guides(self, part: torch.Tensor, window: IndexListContextWindow, number: int) -> tuple[torch.Tensor, int]:
        guides, entries = self.guide_latents[number], self.guide_entries[number]
        if guides is None or entries is None:
            return part, 0
        places, counts, at, count = compute_guide_overlap(
            entries, self.keyframe_idxs[number], self.temporal_downscale_ratio, window.index_list
        )
        window.guide_frames_indices, window.guide_overlap_info = places, counts
        window.guide_kf_local_positions = [place + window.has_anchor() for place in at]
        window.guide_downscale_factors = [guides.shape[3] // entries[entry]["latent_shape"][1] for entry, _ in counts]
        if not count:
            return part, 0
        return torch.cat((part, guides.index_select(self.dim, torch.tensor(places, device=guides.device))), dim=self.dim), count

    def strip_guide_frames(
        self, out_per_modality: Sequence[list[torch.Tensor]], guide_frame_counts: Sequence[int], window: IndexListContextWindow
    ) -> None:
        """Take the guides off the results (by conditioning, then by latent), in place."""
        for number, count in enumerate(guide_frame_counts):
            if count:
                length = len(window.get_window_for_modality(number).index_list)
                for results in out_per_modality:
                    results[number] = results[number].narrow(self.dim, 0, length)

    def patch_latent_shapes(self, sub_conds: Any, new_shapes: list[Any]) -> None:
        """Tell conditioning, in place, which shapes the packed latent of a window has."""
        if not self.is_multimodal:
            return
        for entry in (entry for entries in sub_conds for entry in entries or ()):
            if "latent_shapes" in entry.get("model_conds", {}):
                entry["model_conds"]["latent_shapes"] = comfy.conds.CONDConstant(new_shapes)
