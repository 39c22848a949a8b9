"""Names for Flux models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(
    __name__,
    "Flux models",
    "CLIPTextEncodeFlux:object EmptyFlux2LatentImage:object FluxGuidance:object FluxDisableGuidance:object "
    "FluxKontextImageScale:object FluxKontextMultiReferenceLatentMethod:object generalized_time_snr_shift() compute_empirical_mu() "
    "get_schedule() Flux2Scheduler:object KV_Attn_Input:object FluxKVCache:object",
)
