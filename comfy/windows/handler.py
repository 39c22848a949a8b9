"""Sampling in windows: each step's prediction is put together from those for the windows, which share frames."""

from __future__ import annotations

import logging
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

import comfy.patcher_extension
import comfy.utils
from comfy.interruption import interrupt_flag
from comfy.windows.schedules import ContextFuseMethod, ContextFuseMethods, ContextSchedule, apply_freenoise, get_context_weights
from comfy.windows.state import WindowingState
from comfy.windows.window import IndexListContextWindow, get_shape_for_dim, match_weights_to_dim, slice_cond

log = logging.getLogger(__name__)

SAME_SIGMA = 1e-4
LEAST_BIAS = 1e-2
FRAME_AXES = {"audio_embed": 1, "vace_context": 3}  # of conditioning whose frames lie along another dimension
ContextResults = namedtuple("ContextResults", ["window_idx", "sub_conds_out", "sub_conds", "window"])
Options = dict[str, Any]


class ContextHandlerABC:
    """What samplers ask of a handler, which is in the model options as ``context_handler``."""

    def should_use_context(self, model: Any, conds: Any, x_in: torch.Tensor, timestep: torch.Tensor, model_options: Options) -> bool:
        """Whether there is more than one window."""
        raise NotImplementedError(f"{type(self).__name__} must define should_use_context()")

    def get_resized_cond(self, cond_in: Any, x_in: torch.Tensor, window: Any, device: Any = None) -> Any:
        """Conditioning cut to *window*."""
        raise NotImplementedError(f"{type(self).__name__} must define get_resized_cond()")

    def execute(
        self,
        calc_cond_batch: Callable[..., Any],
        model: Any,
        conds: Any,
        x_in: torch.Tensor,
        timestep: torch.Tensor,
        model_options: Options,
    ) -> list[torch.Tensor]:
        """The predictions for all of *x_in*, one per conditioning."""
        raise NotImplementedError(f"{type(self).__name__} must define execute()")


class IndexListCallbacks:
    """Moments at which functions of node packs are called, which a handler holds in ``callbacks``."""

    EVALUATE_CONTEXT_WINDOWS = "evaluate_context_windows"
    COMBINE_CONTEXT_WINDOW_RESULTS = "combine_context_window_results"
    EXECUTE_START = "execute_start"
    EXECUTE_CLEANUP = "execute_cleanup"
    RESIZE_COND_ITEM = "resize_cond_item"

    def init_callbacks(self) -> dict[str, Any]:
        """None."""
        return {}


def _numbers(text: Any) -> list[int]:
    """The numbers in *text*, separated by commas."""
    return [int(number) for number in text.split(",")] if text else []


def _first_value(conds: Iterable[Any], name: str) -> Any:
    """What the first entry that has it holds under *name* for the model."""
    for entry in (entry for entries in conds for entry in entries or ()):
        value = getattr(entry.get("model_conds", {}).get(name), "cond", None)
        if value is not None:
            return value
    return None


class IndexListContextHandler(ContextHandlerABC):
    """Windows of *context_length* latent frames along *dim*, neighbours sharing *context_overlap*.

    *freenoise*: the noise of later frames is that of earlier ones, shuffled. *cond_retain_index_list* and *latent_retain_index_list*
    ("0,1") are places of each window that keep the whole video's conditioning or latent. *split_conds_to_windows*: of several
    conditionings, each window takes the one of its part of the video. *causal_window_fix*: the frame before a window is sampled with it.
    Raises ``ValueError`` for an overlap that is no smaller than the length.
    """

    def __init__(
        self,
        context_schedule: ContextSchedule,
        fuse_method: ContextFuseMethod,
        context_length: int = 1,
        context_overlap: int = 0,
        context_stride: int = 1,
        closed_loop: bool = False,
        dim: int = 0,
        freenoise: bool = False,
        cond_retain_index_list: Any = "",
        split_conds_to_windows: bool = False,
        latent_retain_index_list: Any = "",
        causal_window_fix: bool = True,
    ) -> None:
        if context_overlap >= context_length:
            raise ValueError(f"windows of {context_length} latent frames cannot share {context_overlap}; choose a smaller context_overlap")
        self.context_schedule, self.fuse_method = context_schedule, fuse_method
        self.context_length, self.context_overlap, self.context_stride = context_length, context_overlap, context_stride
        self.closed_loop, self.dim, self.freenoise = closed_loop, dim, freenoise
        self.cond_retain_index_list = _numbers(cond_retain_index_list)
        self.latent_retain_index_list = _numbers(latent_retain_index_list)
        self.split_conds_to_windows, self.causal_window_fix = split_conds_to_windows, causal_window_fix
        self.callbacks: dict[str, Any] = {}
        self._step = 0
        self._model: Any = None

    def _call(self, moment: str, *arguments: Any) -> None:
        for callback in comfy.patcher_extension.get_all_callbacks(moment, self.callbacks):
            callback(self, *arguments)

    def _build_window_state(self, x_in: torch.Tensor, conds: Any, model: Any) -> WindowingState:
        """*x_in* taken apart: its latents, and the guides behind the video."""
        shapes = _first_value(conds, "latent_shapes")
        several = shapes is not None and len(shapes) > 1
        latents = list(comfy.utils.unpack_latents(x_in, shapes)) if several else [x_in]
        none: list[Any] = [None] * len(latents)
        guides, entries, places = list(none), list(none), list(none)
        found = _first_value(conds, "guide_attention_entries")
        count = sum(entry["latent_shape"][0] for entry in found or ())
        if count:
            video = latents[0]
            latents[0], guides[0] = video.split([video.size(self.dim) - count, count], dim=self.dim)
            entries[0], places[0] = found, _first_value(conds, "keyframe_idxs")
        ratio = model.latent_format.temporal_downscale_ratio
        return WindowingState(latents, guides, entries, places, shapes, self.dim, several, ratio)

    def should_use_context(self, model: Any, conds: Any, x_in: torch.Tensor, timestep: torch.Tensor, model_options: Options) -> bool:
        """Whether the video is longer than a window."""
        frames = self._build_window_state(x_in, conds, model).latents[0].size(self.dim)
        log.debug("windows of %d latent frames with %d shared, for %d", self.context_length, self.context_overlap, frames)
        return frames > self.context_length

    def prepare_control_objects(self, control: Any, device: Any = None) -> Any:
        """*control* for a window: itself, which reads the window from the options."""
        return control

    def get_resized_cond(self, cond_in: Any, x_in: torch.Tensor, window: IndexListContextWindow, device: Any = None) -> Any:
        """*cond_in* with everything that has a part per frame of *x_in* cut to *window*; None stays None."""
        if cond_in is None:
            return None
        if self.split_conds_to_windows and len(cond_in) > 1:
            cond_in = [cond_in[window.get_region_index(len(cond_in))]]
        return [{name: self._resized(name, value, x_in, window, device) for name, value in entry.items()} for entry in cond_in]

    def _resized(self, name: str, value: Any, x_in: torch.Tensor, window: IndexListContextWindow, device: Any) -> Any:
        if isinstance(value, torch.Tensor):
            fits = self.dim < value.ndim and value.size(self.dim) == x_in.size(self.dim)
            return (window.get_tensor(value) if fits else value).to(device)
        if name == "control":
            return self.prepare_control_objects(value, device)
        if not isinstance(value, dict):
            return value
        resized = dict(value)
        for key, item in value.items():
            resized[key] = self._resized_item(key, item, resized, x_in, window, device)
        return resized

    def _resized_item(self, key: str, item: Any, others: Options, x_in: torch.Tensor, window: IndexListContextWindow, device: Any) -> Any:
        """What the model is told under *key*, for *window*: as a callback says, else the model, else by its size."""
        for callback in comfy.patcher_extension.get_all_callbacks(IndexListCallbacks.RESIZE_COND_ITEM, self.callbacks):
            found = callback(key, item, window, x_in, device, others)
            if found is not None:
                return found
        if self._model is not None:
            found = self._model.resize_cond_for_context_window(
                key, item, window, x_in, device, retain_index_list=self.cond_retain_index_list
            )
            if found is not None:
                return found
        if isinstance(item, torch.Tensor):
            return window.get_tensor(item, device) if self._has_frames(item, x_in) else item
        tensor = getattr(item, "cond", None)
        if isinstance(tensor, torch.Tensor):
            if key in FRAME_AXES:
                return slice_cond(item, window, x_in, device, FRAME_AXES[key], retain_index_list=self.cond_retain_index_list) or item
            if not self._has_frames(tensor, x_in):
                return item
            return item._copy_with(window.get_tensor(tensor, device, retain_index_list=self.cond_retain_index_list))
        return item._copy_with(window.context_length) if key == "num_video_frames" else item  # that of SVD

    def _has_frames(self, tensor: torch.Tensor, x_in: torch.Tensor) -> bool:
        """Whether *tensor* has a part per frame of *x_in*: along the same dimension, or one of fewer dimensions along its first."""
        frames = x_in.size(self.dim)
        return (self.dim < tensor.ndim and tensor.size(self.dim) == frames) or (tensor.ndim < self.dim and tensor.size(0) == frames)

    def set_step(self, timestep: torch.Tensor, model_options: Options) -> None:
        """Note the number of the step, on which schedules depend; within a step of a solver that evaluates more often it stays."""
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        found = torch.isclose(sigmas, timestep[0].to(sigmas), rtol=SAME_SIGMA).nonzero()
        if len(found):
            self._step = int(found[0].item())

    def get_context_windows(self, model: Any, x_in: torch.Tensor, model_options: Options) -> list[IndexListContextWindow]:
        """The windows of this step."""
        frames = x_in.size(self.dim)
        found = self.context_schedule.func(frames, self, model_options)
        return [IndexListContextWindow(window, self.dim, frames, context_overlap=self.context_overlap) for window in found]

    def execute(
        self,
        calc_cond_batch: Callable[..., Any],
        model: Any,
        conds: Any,
        x_in: torch.Tensor,
        timestep: torch.Tensor,
        model_options: Options,
    ) -> list[torch.Tensor]:
        """The predictions for all of *x_in*, one per conditioning, from *calc_cond_batch* for each window."""
        self._model = model
        self.set_step(timestep, model_options)
        state = self._build_window_state(x_in, conds, model)
        windows = list(enumerate(self.get_context_windows(model, state.latents[0], model_options)))
        relative = self.fuse_method.name == ContextFuseMethods.RELATIVE
        begin = torch.ones if relative else torch.zeros
        sums = [[torch.zeros_like(latent) for _ in conds] for latent in state.latents]
        counts = [[begin(get_shape_for_dim(latent, self.dim), device=latent.device) for _ in conds] for latent in state.latents]
        biases = [[[0.0] * latent.shape[self.dim] for _ in conds] for latent in state.latents]
        told = (model, x_in, conds, timestep, model_options)
        self._call(IndexListCallbacks.EXECUTE_START, *told)
        try:
            for window in windows:
                results = self.evaluate_context_windows(
                    calc_cond_batch, model, x_in, conds, timestep, [window], model_options, window_state=state, total_windows=len(windows)
                )
                for result in results:
                    for number, latent in enumerate(state.latents):
                        own = result.window.get_window_for_modality(number)
                        out = [parts[number] for parts in result.sub_conds_out]
                        place = (own, result.window_idx, len(windows), timestep)
                        self.combine_context_window_results(
                            latent, out, result.sub_conds, *place, sums[number], counts[number], biases[number]
                        )
            return [self._put_together(state, sums, counts, index, relative) for index in range(len(conds))]
        finally:
            self._call(IndexListCallbacks.EXECUTE_CLEANUP, *told)

    @staticmethod
    def _put_together(state: WindowingState, sums: Any, counts: Any, index: int, relative: bool) -> torch.Tensor:
        """The prediction for the conditioning *index*, guides behind it, packed where there are several latents."""
        parts = []
        for number, guides in enumerate(state.guide_latents):
            part = sums[number][index] if relative else sums[number][index] / counts[number][index]
            parts.append(part if guides is None else torch.cat((part, guides), dim=state.dim))
        return comfy.utils.pack_latents(parts)[0] if state.is_multimodal else parts[0]

    def evaluate_context_windows(
        self,
        calc_cond_batch: Callable[..., Any],
        model: Any,
        x_in: torch.Tensor,
        conds: Any,
        timestep: torch.Tensor,
        enumerated_context_windows: Sequence[tuple[int, IndexListContextWindow]],
        model_options: Options,
        window_state: WindowingState,
        total_windows: int | None = None,
        device: Any = None,
        first_device: Any = None,
    ) -> list[Any]:
        """The results of *calc_cond_batch* for some windows. Raises ``InterruptProcessingException``."""
        results = []
        for number, plain in enumerated_context_windows:
            interrupt_flag.raise_if_set()
            window = window_state.prepare_window(plain, model)
            before = window.index_list[0] - 1
            if self.causal_window_fix and 0 <= before < x_in.size(self.dim):
                window.causal_anchor_index = before
            parts, guides = window_state.slice_for_window(window, self.latent_retain_index_list, device)
            told = (model, x_in, conds, timestep, model_options, number, window, model_options, device, first_device)
            self._call(IndexListCallbacks.EVALUATE_CONTEXT_WINDOWS, *told)
            packed, shapes = comfy.utils.pack_latents(parts) if window_state.is_multimodal else (parts[0], [parts[0].shape])
            model_options["transformer_options"]["context_window"] = window
            own = [self.get_resized_cond(cond, window_state.latents[0], window) for cond in conds]
            window_state.patch_latent_shapes(own, shapes)
            out = calc_cond_batch(model, own, packed, window.get_tensor(timestep, dim=0), model_options)
            apart = [list(comfy.utils.unpack_latents(one, shapes)) for one in out]
            if window.has_anchor():
                for one in apart:
                    one[0] = one[0].narrow(self.dim, 1, one[0].shape[self.dim] - 1)
            window_state.strip_guide_frames(apart, guides, window)
            results.append(ContextResults(number, apart, own, window))
        return results

    def combine_context_window_results(
        self,
        x_in: torch.Tensor,
        sub_conds_out: Sequence[torch.Tensor],
        sub_conds: Any,
        window: IndexListContextWindow,
        window_idx: int,
        total_windows: int,
        timestep: torch.Tensor,
        conds_final: list[torch.Tensor],
        counts_final: list[torch.Tensor],
        biases_final: list[list[float]],
    ) -> None:
        """Add a window's results to the sums, in place, by their weights."""
        if self.fuse_method.name == ContextFuseMethods.RELATIVE:
            self._add_relatively(sub_conds_out, window, conds_final, biases_final)
        else:
            weights = get_context_weights(
                window.context_length, x_in.shape[self.dim], window.index_list, self, timestep, window.context_overlap
            )
            matched = match_weights_to_dim(weights, x_in, self.dim, device=x_in.device)
            for index, result in enumerate(sub_conds_out):
                window.add_window(conds_final[index], result * matched)
                window.add_window(counts_final[index], matched)
        told = (x_in, sub_conds_out, sub_conds, window, window_idx, total_windows, timestep, conds_final, counts_final, biases_final)
        self._call(IndexListCallbacks.COMBINE_CONTEXT_WINDOW_RESULTS, *told)

    def _add_relatively(
        self,
        results: Sequence[torch.Tensor],
        window: IndexListContextWindow,
        conds_final: list[torch.Tensor],
        biases_final: list[list[float]],
    ) -> None:
        """Means weighted by how near each frame is to the middle of its window, frame by frame."""
        first, last = window.index_list[0], window.index_list[-1]
        for place, frame in enumerate(window.index_list):
            bias = max(LEAST_BIAS, 1 - abs(frame - (first + last) / 2) / ((last - first + LEAST_BIAS) / 2))
            for index, result in enumerate(results):
                known = biases_final[index][frame]
                own = conds_final[index].narrow(self.dim, frame, 1)
                own.mul_(known / (known + bias)).add_(result.narrow(self.dim, place, 1) * (bias / (known + bias)))
                biases_final[index][frame] = known + bias

    def _apply_freenoise(self, noise: torch.Tensor, conds: Any, seed: int) -> torch.Tensor:
        """*noise* whose later frames have that of earlier ones, shuffled: in each of several latents, by its own number of frames."""
        guides = sum(entry["latent_shape"][0] for entry in _first_value(conds, "guide_attention_entries") or ())
        shapes = _first_value(conds, "latent_shapes")
        several = shapes is not None and len(shapes) > 1
        parts = list(comfy.utils.unpack_latents(noise, shapes)) if several else [noise]
        whole = parts[0].size(self.dim)
        for number, part in enumerate(parts):
            frames = part.size(self.dim)
            share = frames / whole if number else 1
            length, overlap = max(round(self.context_length * share), 1), max(round(self.context_overlap * share), 0)
            apply_freenoise(part.narrow(self.dim, 0, frames - (0 if number else guides)), self.dim, length, overlap, seed)
        return comfy.utils.pack_latents(parts)[0] if several else noise
