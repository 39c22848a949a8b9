"""Sampling in context windows under the names that node packs import; :mod:`comfy.windows` does the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.patcher_extension
from comfy.windows.handler import ContextHandlerABC, ContextResults, IndexListCallbacks, IndexListContextHandler
from comfy.windows.schedules import (
    CONTEXT_MAPPING,
    FUSE_MAPPING,
    ContextFuseMethod,
    ContextFuseMethods,
    ContextSchedule,
    ContextSchedules,
    apply_freenoise,
    create_weights_flat,
    create_weights_overlap_linear,
    create_weights_pyramid,
    create_windows_batched,
    create_windows_default,
    create_windows_static_standard,
    create_windows_uniform_looped,
    create_windows_uniform_standard,
    does_window_roll_over,
    get_context_weights,
    get_matching_context_schedule,
    get_matching_fuse_method,
    get_missing_indexes,
    ordered_halving,
    shift_window_to_end,
    shift_window_to_start,
)
from comfy.windows.state import WindowingState
from comfy.windows.window import (
    ContextWindowABC,
    IndexListContextWindow,
    compute_guide_overlap,
    get_shape_for_dim,
    match_weights_to_dim,
    slice_cond,
)

__all__ = [
    "CONTEXT_MAPPING",
    "FUSE_MAPPING",
    "ContextFuseMethod",
    "ContextFuseMethods",
    "ContextHandlerABC",
    "ContextResults",
    "ContextSchedule",
    "ContextSchedules",
    "ContextWindowABC",
    "IndexListCallbacks",
    "IndexListContextHandler",
    "IndexListContextWindow",
    "WindowingState",
    "apply_freenoise",
    "compute_guide_overlap",
    "create_prepare_sampling_wrapper",
    "create_sampler_sample_wrapper",
    "create_weights_flat",
    "create_weights_overlap_linear",
    "create_weights_pyramid",
    "create_windows_batched",
    "create_windows_default",
    "create_windows_static_standard",
    "create_windows_uniform_looped",
    "create_windows_uniform_standard",
    "does_window_roll_over",
    "get_context_weights",
    "get_matching_context_schedule",
    "get_matching_fuse_method",
    "get_missing_indexes",
    "get_shape_for_dim",
    "match_weights_to_dim",
    "ordered_halving",
    "shift_window_to_end",
    "shift_window_to_start",
    "slice_cond",
]


def create_prepare_sampling_wrapper(model: Any) -> None:
    """Let *model* (a patcher) be given memory for one window only."""
    kind = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
    model.add_wrapper_with_key(kind, "ContextWindows_prepare_sampling", _prepare_for_a_window)


def _prepare_for_a_window(
    executor: Callable[..., Any], model: Any, noise_shape: Sequence[int], conds: Any, *args: Any, **kwargs: Any
) -> Any:
    handler = (kwargs.get("model_options") or {}).get("context_handler")
    shape = list(noise_shape)
    is_packed = len(shape) == 3 and shape[1] == 1  # where the frames of which are not told here
    if handler is not None and not is_packed and handler.dim < len(shape):
        shape[handler.dim] = min(shape[handler.dim], handler.context_length)
    return executor(model, shape, conds, *args, **kwargs)


def create_sampler_sample_wrapper(model: Any) -> None:
    """Let samplings of *model* (a patcher) begin with noise that its windows share."""
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    model.add_wrapper_with_key(kind, "ContextWindows_sampler_sample", _begin_with_shared_noise)


def _begin_with_shared_noise(
    executor: Callable[..., Any], guider: Any, sigmas: Any, extra_args: dict[str, Any], callback: Any, noise: Any, *args: Any, **kwargs: Any
) -> Any:
    handler = (extra_args.get("model_options") or {}).get("context_handler")
    if handler is not None and handler.freenoise:
        conds = guider.conds.get("positive", guider.conds.get("negative", []))
        noise = handler._apply_freenoise(noise, [conds], extra_args["seed"])
    return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)
