"""Names for LTX-Video models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(
    __name__,
    "LTX-Video models",
    "GetICLoRAParameters:object EmptyLTXVLatentVideo:object LTXVImgToVideo:object LTXVImgToVideoInplace:object "
    "_append_guide_attention_entry() conditioning_get_any_value() get_noise_mask() get_keyframe_idxs() LTXVAddGuide:object "
    "LTXVCropGuides:object LTXVConditioning:object ModelSamplingLTXV:object LTXVScheduler:object encode_single_frame() "
    "decode_single_frame() preprocess() LTXVPreprocess:object LTXVConcatAVLatent:object LTXVSeparateAVLatent:object "
    "LTXVReferenceAudio:object LTXVSpatioTemporalGuidance:object LTXVModalityGuidance:object "
    "Guider_LTXAVDualCFG:comfy.samplers.CFGGuider LTXVDualCFGGuider:object LTXVDurationPredictor:object",
)
