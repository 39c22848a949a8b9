"""Load a diffusion model alone: from a file, from tensors in memory, or from an open weight source."""

import logging
from collections.abc import Mapping, MutableMapping
from functools import cached_property

import torch

from comfy import model_detection, supported_models
from comfy.dit.diffusers_files import as_published_transformer
from comfy.families.diffusers_unet import as_published_unet
from comfy.families.key_accounts import outside, say_unused
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.loading.components import Options, build_model, described, kept_bytes, model_dtype
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import INDEPENDENT, Part, load_parts
from comfy.model_patcher import ModelPatcher

log = logging.getLogger(__name__)


def load_diffusion_model(unet_path: str, model_options: Options | None = None, disable_dynamic: bool = False) -> ModelPatcher:
    """The model patcher of a file that holds a diffusion model, alone or in a checkpoint, in published or diffusers' names.

    Raises ``ModelFileError`` naming the file.
    """
    return _diffusion_model_file(unet_path, model_options, "")


def load_independent_diffusion_model(unet_path: str, model_options: Options | None = None) -> ModelPatcher:
    """The patcher of a diffusion model's file with weights of its own, which no cache keeps."""
    return _diffusion_model_file(unet_path, model_options, INDEPENDENT)


def _diffusion_model_file(unet_path: str, model_options: Options | None, bypass: str) -> ModelPatcher:
    with ModelFiles(unet_path) as files:
        return load_parts(files, {"model": _DiffusionModelPart(files, model_options, bypass)})["model"]


class _DiffusionModelPart(Part[ModelPatcher]):
    """The one part of such a file."""

    def __init__(self, files: ModelFiles, model_options: Options | None, bypass: str) -> None:
        super().__init__({"model_options": model_options or {}}, bypass)
        self._files, self._model_options = files, model_options

    @cached_property
    def _content(self) -> "DiffusionModel":
        return DiffusionModel(self._files.source(), self._model_options)

    def load(self) -> ModelPatcher:
        model = self._content.load()
        model.cached_patcher_init = (load_independent_diffusion_model, (self._files.paths[0], self._model_options))
        return model

    def estimate_bytes(self) -> int:
        return self._content.kept_bytes()


def load_diffusion_model_state_dict(
    sd: MutableMapping[str, torch.Tensor],
    model_options: Options | None = None,
    metadata: Mapping[str, str] | None = None,
    disable_dynamic: bool = False,
) -> ModelPatcher | None:
    """The patcher of a diffusion model in memory, or None for an unknown family; used tensors leave *sd*."""
    try:
        return load_diffusion_model_source(StateDictSource(sd, "the state dict", metadata, consume=True), model_options)
    except UnknownModelError as error:
        log.warning("%s", error)
        return None


def load_diffusion_model_source(source: WeightSource, model_options: Options | None = None) -> ModelPatcher:
    """The patcher of the diffusion model in a weight source. Raises ``UnknownModelError``, naming it, for an unknown family."""
    return DiffusionModel(source, model_options).load()


class DiffusionModel:
    """A diffusion model alone in an open source. Raises ``UnknownModelError``, naming it, for an unknown family."""

    def __init__(self, source: WeightSource, model_options: Options | None) -> None:
        self.source = as_published_transformer(as_published_unet(plain_weights(source)))
        self._options = model_options or {}
        self._tensors = described(self.source)
        prefix = model_detection.unet_prefix_from_state_dict(self._tensors)
        self._prefix = prefix if any(key.startswith(prefix) for key in self._tensors) else ""
        with naming_file(self.source.name, "the diffusion model"):
            config = model_detection.model_config_from_unet(self._tensors, self._prefix, metadata=self.source.metadata)
        if config is None:
            found = model_detection.describe_tensors(self._tensors)
            channels = model_detection.describe_channels(self._tensors, self._prefix)
            raise UnknownModelError(
                f"{self.source.name} holds no model of a supported family. Found {found}{channels}. "
                f"Supported: {supported_models.SUPPORTED_FAMILIES}"
            )
        self._config = config
        say_unused(self.source.name, "outside the diffusion model", outside(self._tensors, (self._prefix,)), ())

    def kept_bytes(self) -> int:
        """What its weights will take."""
        return kept_bytes(self.source, self._prefix, model_dtype(self._config, self._tensors, self._prefix, self._options))

    def load(self) -> ModelPatcher:
        """Its patcher."""
        return build_model(self._config, self.source, self._prefix, self._tensors, self._options)
