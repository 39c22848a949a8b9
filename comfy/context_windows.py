"""Names of sampling in context windows that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "sampling in context windows",
    "ContextWindowABC:object ContextHandlerABC:object IndexListContextWindow:ContextWindowABC IndexListCallbacks:object slice_cond() "
    "compute_guide_overlap() WindowingState:object ContextSchedule:object ContextFuseMethod:object "
    "IndexListContextHandler:ContextHandlerABC create_prepare_sampling_wrapper() create_sampler_sample_wrapper() "
    "match_weights_to_dim() get_shape_for_dim() ContextSchedules:object create_windows_uniform_looped() "
    "create_windows_uniform_standard() create_windows_static_standard() create_windows_batched() create_windows_default() "
    "get_matching_context_schedule() get_context_weights() create_weights_flat() create_weights_pyramid() "
    "create_weights_overlap_linear() ContextFuseMethods:object get_matching_fuse_method() ordered_halving() get_missing_indexes() "
    "does_window_roll_over() shift_window_to_start() shift_window_to_end() apply_freenoise()",
)
