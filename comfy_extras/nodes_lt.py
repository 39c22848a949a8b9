"""The node that makes empty latents for LTX-Video; other names are :mod:`comfy.placeholders`."""

from __future__ import annotations

from comfy.placeholders import placeholders
from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.node_extension import extension_of

CHANNELS, PIXELS_PER_CELL, FRAMES_PER_CELL = 128, 32, 8


class EmptyLTXVLatentVideo(io.ComfyNode):
    """Makes empty latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyLTXVLatentVideo",
            category="model/latent/ltxv",
            inputs=size_inputs(768, 512, PIXELS_PER_CELL, 64, length=(97, 1, FRAMES_PER_CELL)),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 128 channels, a cell per 32×32 pixels and 8 frames (the first frame has one of its own)."""
        frames = (length - 1) // FRAMES_PER_CELL + 1
        shape = (batch_size, CHANNELS, frames, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL)
        return io.NodeOutput(empty_latent(*shape, downscale_ratio_spacial=PIXELS_PER_CELL))

    generate = execute


comfy_entrypoint = extension_of(EmptyLTXVLatentVideo)

__getattr__, __dir__ = placeholders(
    __name__,
    "LTX-Video models",
    "GetICLoRAParameters:object LTXVImgToVideo:object LTXVImgToVideoInplace:object "
    "_append_guide_attention_entry() conditioning_get_any_value() get_noise_mask() get_keyframe_idxs() LTXVAddGuide:object "
    "LTXVCropGuides:object LTXVConditioning:object ModelSamplingLTXV:object LTXVScheduler:object encode_single_frame() "
    "decode_single_frame() preprocess() LTXVPreprocess:object LTXVConcatAVLatent:object LTXVSeparateAVLatent:object "
    "LTXVReferenceAudio:object LTXVSpatioTemporalGuidance:object LTXVModalityGuidance:object "
    "Guider_LTXAVDualCFG:comfy.samplers.CFGGuider LTXVDualCFGGuider:object LTXVDurationPredictor:object",
)
