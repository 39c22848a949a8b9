"""Image encoders under the names node packs import: loading them, and encoding pictures."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from typing import Any

from torch import Tensor

import comfy.model_management
import comfy.model_patcher
import comfy.ops
from comfy.families.clip_vision_encoder import ClipVisionConfig, ClipVisionTransformer, clip_vision_part, load_clip_vision, to_transformers
from comfy.families.model_errors import naming_file
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.image_encoders.pictures import CLIP_MEAN, CLIP_STD, SIGLIP_MEAN, SIGLIP_STD, clip_preprocess
from comfy.image_encoders.siglip import MODEL_TYPE as SIGLIP
from comfy.image_encoders.siglip import SiglipConfig, SiglipVisionTransformer, siglip_part
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts

PENULTIMATE = -2
LLAVA, LLAVA_WIDTH = "llava3", 4096  # ComfyUI's name of LLaVA's encoder, and the width of its language model


class Output:
    """What an image encoder makes of pictures, as attributes and items: ``last_hidden_state``, ``penultimate_hidden_states``,
    ``image_embeds``, ``image_sizes``, of SigLIP ``all_hidden_states`` and of LLaVA ``mm_projected``, for its language model."""

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __setitem__(self, key: str, item: Any) -> None:
        setattr(self, key, item)


class ClipVisionModel:
    """An image encoder with its patcher; *json_config* is a dict of transformers' names, or the path of a JSON file with one.

    Its weights are unset until :meth:`load_sd`.
    """

    def __init__(self, json_config: dict[str, Any] | str) -> None:
        if isinstance(json_config, dict):
            config = dict(json_config)
        else:
            with open(json_config, encoding="utf-8") as file:
                config = json.load(file)
        self.config = config
        self.image_size = config.get("image_size", 224)
        self.model_type = config.get("model_type", "clip_vision_model")
        is_siglip = self.model_type == SIGLIP
        self.image_mean = config.get("image_mean", list(SIGLIP_MEAN if is_siglip else CLIP_MEAN))
        self.image_std = config.get("image_std", list(SIGLIP_STD if is_siglip else CLIP_STD))
        self.return_all_hidden_states = is_siglip
        management = comfy.model_management
        self.load_device = management.text_encoder_device()
        self.dtype = management.text_encoder_dtype(self.load_device)
        self.model: ClipVisionTransformer | SiglipVisionTransformer = (
            SiglipVisionTransformer(_siglip_sizes(config), comfy.ops.manual_cast)
            if is_siglip
            else ClipVisionTransformer(_sizes(config), comfy.ops.manual_cast)
        )
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.model, load_device=self.load_device, offload_device=management.text_encoder_offload_device()
        )

    def load_sd(self, sd: MutableMapping[str, Tensor]) -> tuple[list[str], list[str]]:
        """Take the weights of *sd*, in transformers' names; returns (missing, unexpected) names, the first always empty.

        Raises ``IncompleteModelError`` when tensors are missing.
        """
        self.load_weights(StateDictSource(sd))
        known = set(self.model.state_dict())
        return [], [name for name in sd if name not in known]

    def load_weights(self, source: WeightSource) -> None:
        """Take the weights of *source* (no prefix), in transformers' or open_clip's names."""
        load_clip_vision(self.model, source, self.dtype, "the image encoder")

    def get_sd(self) -> dict[str, Tensor]:
        """The weights, by name."""
        return self.model.state_dict()

    def encode_image(self, image: Tensor, crop: bool = True) -> Output:
        """Encode pictures (B x height x width x channels, 0…1); *crop*: see :func:`clip_preprocess`. Results are float32.

        They lie on the device for values between nodes.
        """
        comfy.model_management.load_model_gpu(self.patcher)
        pixels = clip_preprocess(image.to(self.load_device), self.image_size, self.image_mean, self.image_std, crop).float()
        wanted = "all" if self.return_all_hidden_states else PENULTIMATE
        last, chosen, embeds, projected = self.model(pixel_values=pixels, intermediate_output=wanted)
        device = comfy.model_management.intermediate_device()
        output = Output()
        output["last_hidden_state"] = last.to(device)
        output["image_embeds"] = embeds.to(device)
        output["image_sizes"] = [pixels.shape[1:]] * len(pixels)
        if self.return_all_hidden_states:
            output["all_hidden_states"] = chosen.to(device)
            chosen = chosen[:, PENULTIMATE]
        output["penultimate_hidden_states"] = None if chosen is None else chosen.to(device)
        output["mm_projected"] = None if projected is None else projected.to(device)
        return output


def _sizes(config: dict[str, Any]) -> ClipVisionConfig:
    return ClipVisionConfig(
        image_size=config.get("image_size", 224),
        patch_size=config["patch_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        hidden_act=config["hidden_act"],
        projection=config.get("projection_dim", 0),
        projector=config.get("projector_dim", LLAVA_WIDTH if config.get("projector_type") == LLAVA else 0),
    )


def _siglip_sizes(config: dict[str, Any]) -> SiglipConfig:
    return SiglipConfig(
        image_size=config["image_size"],
        patch_size=config["patch_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
    )


def convert_to_transformers(sd: MutableMapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of *sd* below *prefix* under transformers' names, whichever of the two styles they are in."""
    return to_transformers({key.removeprefix(prefix): tensor for key, tensor in sd.items() if key.startswith(prefix)})


def load_clipvision_from_sd(sd: MutableMapping[str, Tensor], prefix: str = "", convert_keys: bool = False) -> ClipVisionModel | None:
    """The image encoder of a state dict, or None if it holds none. With *convert_keys* names begin with *prefix*."""
    own = convert_to_transformers(sd, prefix) if convert_keys else sd
    return load_clip_vision_source(StateDictSource(dict(own), "the state dict"))


def load(ckpt_path: str) -> ClipVisionModel | None:
    """The image encoder of a file, or None if it holds none.

    Raises ``ModelFileError``, naming the file, when it is damaged or holds an image encoder of another kind than CLIP's or SigLIP's.
    """
    with ModelFiles(os.fspath(ckpt_path)) as files:
        return load_parts(files, {"clip_vision": _VisionPart(files)})["clip_vision"]


class _VisionPart(Part[ClipVisionModel | None]):
    """The image encoder of a file."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self._files = files

    def load(self) -> ClipVisionModel | None:
        return load_clip_vision_source(self._files.source())

    def estimate_bytes(self) -> int:
        management = comfy.model_management
        return kept_bytes(self._files.source(), "", management.text_encoder_dtype(management.text_encoder_device()))


def load_clip_vision_source(source: WeightSource) -> ClipVisionModel | None:
    """The image encoder of a weight source (no prefix), or None if it holds none. Raises ``ModelFileError``."""
    with naming_file(source.name, "the image encoder"):
        siglip = siglip_part(source)
    if siglip is not None:
        model = ClipVisionModel({**siglip.transformers_arguments(), "model_type": SIGLIP})
        model.load_weights(source)
        return model
    found = clip_vision_part(source)
    if found is None:
        return None
    part, sizes = found
    arguments = sizes.transformers_arguments()
    if not sizes.projection:
        del arguments["projection_dim"]
    model = ClipVisionModel({**arguments, "projector_dim": sizes.projector, "model_type": "clip_vision_model"})
    model.load_weights(part)
    return model
