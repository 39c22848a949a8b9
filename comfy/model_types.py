"""What networks predict and over which schedule, and the objects that samplers ask about it."""

import enum
from typing import Any

import comfy.model_sampling

ModelType = enum.Enum(
    "ModelType",
    "EPS V_PREDICTION V_PREDICTION_EDM STABLE_CASCADE EDM FLOW V_PREDICTION_CONTINUOUS FLUX IMG_TO_IMG FLOW_COSMOS "
    "IMG_TO_IMG_FLOW V_PREDICTION_DDPM FLOW_AV",
)
ModelType.__doc__ = "What the network predicts and over which schedule; ComfyUI's names and numbers."


def model_sampling(model_config: Any, model_type: ModelType) -> Any:
    """A new sampling object (prediction and schedule mixed) for *model_type*.

    Raises ``ValueError`` for a type that no family here uses.
    """
    kinds = comfy.model_sampling
    mixes = {
        ModelType.EPS: (kinds.ModelSamplingDiscrete, kinds.EPS),
        ModelType.V_PREDICTION: (kinds.ModelSamplingDiscrete, kinds.V_PREDICTION),
        ModelType.V_PREDICTION_EDM: (kinds.ModelSamplingContinuousEDM, kinds.V_PREDICTION),
        ModelType.EDM: (kinds.ModelSamplingContinuousEDM, kinds.EDM),
        ModelType.V_PREDICTION_CONTINUOUS: (kinds.ModelSamplingContinuousV, kinds.V_PREDICTION),
        ModelType.FLOW: (kinds.ModelSamplingDiscreteFlow, kinds.CONST),
        ModelType.FLUX: (kinds.ModelSamplingFlux, kinds.CONST),
        ModelType.IMG_TO_IMG: (kinds.ModelSamplingDiscrete, kinds.IMG_TO_IMG),
        ModelType.FLOW_COSMOS: (kinds.ModelSamplingCosmosRFlow, kinds.COSMOS_RFLOW),
        ModelType.FLOW_AV: (kinds.ModelSamplingAV, kinds.CONST),
    }
    if model_type not in mixes:
        raise ValueError(f"no sampling is defined for {model_type}; defined: {', '.join(kind.name for kind in mixes)}")
    return type("ModelSampling", mixes[model_type], {})(model_config)
