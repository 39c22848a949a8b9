"""Nodes for Flux; names of those that are not here are :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders
from comfy_extras.flux2_nodes import (
    FLUX2_NODES,
    EmptyFlux2LatentImage,
    Flux2Scheduler,
    compute_empirical_mu,
    generalized_time_snr_shift,
    get_schedule,
)
from comfy_extras.node_extension import extension_of

__all__ = [
    "EmptyFlux2LatentImage",
    "Flux2Scheduler",
    "comfy_entrypoint",
    "compute_empirical_mu",
    "generalized_time_snr_shift",
    "get_schedule",
]

comfy_entrypoint = extension_of(*FLUX2_NODES)

__getattr__, __dir__ = placeholders(
    __name__,
    "Flux models",
    "CLIPTextEncodeFlux:object FluxGuidance:object FluxDisableGuidance:object FluxKontextImageScale:object "
    "FluxKontextMultiReferenceLatentMethod:object KV_Attn_Input:object FluxKVCache:object",
)
