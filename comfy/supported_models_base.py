"""What a model configuration says, and the defaults that families change."""

from collections.abc import Mapping
from typing import Any

import torch

import comfy.utils
from comfy import latent_formats, model_base


class ClipTarget:
    """Which tokenizer and text encoder class a model uses; ``params`` are extra constructor arguments."""

    def __init__(self, tokenizer: Any, clip: Any) -> None:
        self.tokenizer = tokenizer
        self.clip = clip
        self.params: dict[str, Any] = {}


class BASE:
    """One model's configuration. ``unet_config`` of the class is what a file must show to match; of the instance, its sizes."""

    unet_config: dict[str, Any] = {}
    required_keys: Mapping[str, Any] = {}
    sampling_settings: dict[str, Any] = {}
    latent_format: Any = latent_formats.LatentFormat  # of the class, a class; of the instance, an object of it
    vae_key_prefix: tuple[str, ...] = ("first_stage_model.",)
    text_encoder_type: str | None = None  # of the loaders: makes the text encoder of those of its text models that a checkpoint holds
    text_encoder_key_prefix: tuple[str, ...] = ("cond_stage_model.",)
    further_key_prefixes: tuple[str, ...] = ()  # of what else of the model a checkpoint holds
    clip_vision_prefix: str | None = None
    supported_inference_dtypes: tuple[torch.dtype, ...] = (torch.float16, torch.bfloat16, torch.float32)
    memory_usage_factor = 2.0
    manual_cast_dtype: torch.dtype | None = None
    custom_operations: Any = None
    quant_config: Any = None

    def __init__(self, unet_config: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> None:
        self.unet_config = dict(unet_config)
        self.settings = settings or {}
        self.sampling_settings = dict(self.sampling_settings)
        self.latent_format = self.latent_format()
        self.optimizations = {"fp8": False}
        scale = self.settings.get("latent", {}).get("scale_factor")
        if scale is not None:
            self.latent_format.scale_factor = scale

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        """Whether a file with *unet_config* is of this family."""
        if any(key not in unet_config or unet_config[key] != value for key, value in cls.unet_config.items()):
            return False
        return state_dict is None or all(key.format(unet_key_prefix) in state_dict for key in cls.required_keys)

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """What the network predicts, from marks in *state_dict* or the file's settings."""
        if self.settings.get("prediction") == "v_prediction":
            return model_base.ModelType.V_PREDICTION
        return model_base.ModelType.EPS

    def inpaint_model(self) -> bool:
        """Whether the network takes a mask and the masked picture beside the latent."""
        return self.unet_config["in_channels"] > 4

    def get_model(self, state_dict: Mapping[str, Any], prefix: str = "", device: torch.device | None = None) -> model_base.BaseModel:
        """A new model without weights."""
        model = self.model_class()(self, model_type=self.model_type(state_dict, prefix), device=device)
        if self.inpaint_model():
            model.set_inpaint()
        return model

    def model_class(self) -> type[model_base.BaseModel]:
        """The class of :meth:`get_model`'s result."""
        return model_base.BaseModel

    def clip_target(self, state_dict: Mapping[str, Any] | None = None) -> ClipTarget | None:
        """The text encoder classes, or None for a family without one, or one with a ``text_encoder_type``."""
        return None

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        """Per text model ("clip_l") the prefixes its tensors may have in a checkpoint, most usual first."""
        return {}

    def set_inference_dtype(self, dtype: torch.dtype, manual_cast_dtype: torch.dtype | None, device: Any = None) -> None:
        """Keep weights in *dtype* and compute in *manual_cast_dtype* (None: the same)."""
        self.unet_config["dtype"] = dtype
        self.manual_cast_dtype = manual_cast_dtype

    def process_unet_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The network's tensors under their names in a checkpoint."""
        return comfy.utils.state_dict_prefix_replace(state_dict, {"": "model.diffusion_model."})

    def process_vae_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The autoencoder's tensors under their names in a checkpoint."""
        return comfy.utils.state_dict_prefix_replace(state_dict, {"": self.vae_key_prefix[0]})

    def process_clip_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The text encoder's tensors under their names in a checkpoint."""
        return comfy.utils.state_dict_prefix_replace(state_dict, {"": self.text_encoder_key_prefix[0]})

    def process_clip_vision_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The image encoder's tensors under their names in a checkpoint."""
        return comfy.utils.state_dict_prefix_replace(state_dict, {"": self.clip_vision_prefix or ""})
