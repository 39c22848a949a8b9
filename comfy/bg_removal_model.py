"""Models that tell what pictures show from their background, loaded through the RAM model cache."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

import torch

import comfy.model_management
import comfy.model_patcher
import comfy.ops
from comfy.background_removal.birefnet import IN_FLOAT32, BiRefNet, BiRefNetSizes, parameter_name, parameters_of, read_birefnet_sizes
from comfy.families.conversion_plan import assign, load_parameters, plan_conversion
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.image_encoders.pictures import clip_preprocess
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.model_detection import describe_tensors

WHAT = "the background removal model"
SIDE = 1024  # of the pictures that it was trained on
WORKING_BYTES = 3 << 30  # that one of them takes, beside the weights


class BackgroundRemovalModel:
    """Such a model with its patcher. *image_size* is the side that pictures are scaled to."""

    def __init__(self, sizes: BiRefNetSizes) -> None:
        management = comfy.model_management
        self.image_size, self.image_mean, self.image_std = SIDE, [0.0] * 3, [1.0] * 3
        self.load_device = management.text_encoder_device()
        self.dtype = management.text_encoder_dtype(self.load_device)
        self.model = BiRefNet(sizes, comfy.ops.manual_cast)
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.model, load_device=self.load_device, offload_device=management.text_encoder_offload_device()
        )

    def load_weights(self, source: WeightSource) -> None:
        """Take the weights of *source*. Raises ``ModelFileError``."""
        shapes = source.shapes()
        used = {key: key for key in shapes if parameter_name(key) is not None}
        source = RenamedSource(source, used, {key: shapes[key] for key in used})
        with naming_file(source.name, WHAT):
            plan = plan_conversion(source.shapes(), parameters_of)
        load_parameters(self.model, source, plan, self.dtype, WHAT)
        wide = {name: value.float() for name, value in self.model.named_parameters() if name.endswith(IN_FLOAT32)}
        assign(self.model, wide)

    def get_sd(self) -> dict[str, torch.Tensor]:
        """The weights, by name."""
        return self.model.state_dict()

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """How much of each pixel of *image* (B x height x width x channels) it shows, from 0 to 1: B x height x width."""
        management = comfy.model_management
        management.load_models_gpu([self.patcher], memory_required=WORKING_BYTES)
        masks = []
        for picture in image:
            management.throw_exception_if_processing_interrupted()
            scaled = clip_preprocess(picture[None].to(self.load_device), self.image_size, self.image_mean, self.image_std, crop=False)
            found = self.model(scaled.float())
            masks.append(torch.nn.functional.interpolate(found, size=picture.shape[:2], mode="bicubic")[:, 0].sigmoid())
        return torch.cat(masks).to(management.intermediate_device(), management.intermediate_dtype())


def load(ckpt_path: str) -> BackgroundRemovalModel:
    """The model of a file. Blocks. Raises ``UnknownModelError`` for one that holds none, ``ModelFileError`` for a damaged one."""
    with ModelFiles(os.fspath(ckpt_path)) as files:
        return load_parts(files, {"bg_removal": _RemovalPart(files)})["bg_removal"]


def load_background_removal_model(sd: MutableMapping[str, torch.Tensor]) -> BackgroundRemovalModel | None:
    """The model of a state dict; None where it holds none."""
    source = StateDictSource(dict(sd), "the state dict")
    return None if read_birefnet_sizes(source.shapes()) is None else _from_source(source)


class _RemovalPart(Part[BackgroundRemovalModel]):
    """The model of a file."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self._files = files

    def load(self) -> BackgroundRemovalModel:
        return _from_source(self._files.source())

    def estimate_bytes(self) -> int:
        management = comfy.model_management
        return kept_bytes(self._files.source(), "", management.text_encoder_dtype(management.text_encoder_device()))


def _from_source(source: WeightSource) -> BackgroundRemovalModel:
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        sizes = read_birefnet_sizes(part.shapes())
    if sizes is None:
        found = describe_tensors(source.shapes())
        raise UnknownModelError(f"{source.name} holds no background removal model that is supported. Found {found}. Supported: BiRefNet")
    model = BackgroundRemovalModel(sizes)
    model.load_weights(part)
    return model
