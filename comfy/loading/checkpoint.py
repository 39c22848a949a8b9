"""From a checkpoint to a patched-ready model, text encoder and autoencoder; each component reads only its own tensors."""

import logging
from collections.abc import Callable, Mapping, MutableMapping
from functools import cached_property
from typing import Any

import torch

import comfy.model_management
from comfy import model_detection
from comfy.clip_vision import ClipVisionModel, load_clip_vision_source
from comfy.families.key_accounts import say_unused
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource
from comfy.images.autoencoders import working_dtypes
from comfy.images.vae import VAE
from comfy.loading.components import Options, build_clip, build_model, carried_tokenizers, described, first_prefix, kept_bytes, model_dtype
from comfy.loading.diffusion_model import DiffusionModel
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import INDEPENDENT, Part, load_parts
from comfy.model_patcher import ModelPatcher
from comfy.ram_model_cache.storage import patcher_of
from comfy.supported_models_base import BASE
from comfy.text.combinations import find_combination
from comfy.text.encoder import CLIP, kept_part_dtype
from comfy.text.kinds import FoundEncoder, read_part

log = logging.getLogger(__name__)

Loaded = tuple[Any, CLIP | None, VAE | None, ClipVisionModel | None]


def load_checkpoint_guess_config(
    ckpt_path: str,
    output_vae: bool = True,
    output_clip: bool = True,
    output_clipvision: bool = False,
    embedding_directory: Any = None,
    output_model: bool = True,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    disable_dynamic: bool = False,
) -> Loaded:
    """(model patcher, CLIP, VAE, image encoder) of a checkpoint file, None for what was not asked for or is not in it.

    Raises ``ModelFileError`` naming the file when it is not a model of a supported family, truncated or damaged.
    """
    wanted = {"model": output_model, "clip": output_clip, "vae": output_vae, "clip_vision": output_clipvision}
    with ModelFiles(ckpt_path) as files:
        known = CheckpointFile(files, embedding_directory, model_options, te_model_options).all_parts()
        parts = load_parts(files, {name: part for name, part in known.items() if wanted[name]})
        vae = parts.get("vae")
        if output_vae and vae is None:
            vae = VAE({})
        return parts.get("model"), parts.get("clip"), vae, parts.get("clip_vision")


def load_independent_part(
    name: str, ckpt_path: str, embedding_directory: Any, model_options: Options | None, te_model_options: Options | None
) -> Any:
    """The part *name* of a checkpoint with weights of its own, which the RAM model cache neither gives nor keeps."""
    with ModelFiles(ckpt_path) as files:
        known = CheckpointFile(files, embedding_directory, model_options, te_model_options).all_parts(INDEPENDENT)
        return load_parts(files, {name: known[name]})[name]


def load_checkpoint_guess_config_model_only(
    ckpt_path: str,
    embedding_directory: Any = None,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    disable_dynamic: bool = False,
) -> ModelPatcher:
    """A new model patcher with weights of its own."""
    return load_independent_part("model", ckpt_path, embedding_directory, model_options, te_model_options)


def load_checkpoint_guess_config_clip_only(
    ckpt_path: str,
    embedding_directory: Any = None,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    disable_dynamic: bool = False,
) -> ModelPatcher:
    """A new text encoder patcher with weights of its own."""
    return load_independent_part("clip", ckpt_path, embedding_directory, model_options, te_model_options).patcher


def load_checkpoint_vae_patcher(
    ckpt_path: str,
    embedding_directory: Any = None,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    disable_dynamic: bool = False,
) -> ModelPatcher:
    """A new autoencoder patcher with weights of its own."""
    return load_independent_part("vae", ckpt_path, embedding_directory, model_options, te_model_options).patcher


def load_state_dict_guess_config(
    sd: MutableMapping[str, torch.Tensor],
    output_vae: bool = True,
    output_clip: bool = True,
    output_clipvision: bool = False,
    embedding_directory: Any = None,
    output_model: bool = True,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    metadata: Mapping[str, str] | None = None,
    disable_dynamic: bool = False,
) -> Loaded | None:
    """(model patcher, CLIP, VAE, None) of a checkpoint in memory, or None for an unknown family; used tensors leave *sd*."""
    try:
        return load_checkpoint_source(
            StateDictSource(sd, "the state dict", metadata, consume=True),
            output_vae,
            output_clip,
            embedding_directory,
            output_model,
            model_options,
            te_model_options,
        )
    except UnknownModelError as error:
        log.warning("%s", error)
        return None


def load_checkpoint_source(
    source: WeightSource,
    output_vae: bool = True,
    output_clip: bool = True,
    embedding_directory: Any = None,
    output_model: bool = True,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
) -> Loaded:
    """(model patcher, CLIP, VAE, None) of a weight source. A lone diffusion model comes back without text encoder and with an empty VAE."""
    parts = CheckpointParts(source, embedding_directory, model_options, te_model_options)
    if parts.config is None:
        return parts.load_model(), None, VAE({}), None
    return (
        parts.load_model() if output_model else None,
        parts.load_clip() if output_clip else None,
        VAE(parts.vae_source(), device=parts.load_device) if output_vae else None,
        None,
    )


class CheckpointParts:
    """The parts of one open checkpoint, loaded one by one; a lone diffusion model has just that one, and no ``config``.

    Raises ``UnknownModelError`` when the source is not a model of a supported family.
    """

    def __init__(
        self, source: WeightSource, embedding_directory: Any, model_options: Options | None, te_model_options: Options | None
    ) -> None:
        self._source = source = plain_weights(source)
        self._embedding_directory = embedding_directory
        self._options, self._te_options = model_options or {}, te_model_options or {}
        self._tensors = described(source)
        self._prefix = model_detection.unet_prefix_from_state_dict(self._tensors)
        with naming_file(source.name, "the diffusion model"):
            self.config = model_detection.model_config_from_unet(self._tensors, self._prefix, metadata=source.metadata)
        self._lone: DiffusionModel  # without a configuration only
        if self.config is None:
            log.warning("%s is not a complete checkpoint; trying it as a diffusion model alone", source.name)
            self._lone = DiffusionModel(source, model_options)
            return
        encoders = [prefix for prefixes in self.config.text_encoder_parts().values() for prefix in prefixes]
        eyes = () if self.config.clip_vision_prefix is None else (self.config.clip_vision_prefix,)
        parts = (self._prefix, *self.config.vae_key_prefix, *encoders, *self.config.further_key_prefixes, *eyes)
        say_unused(source.name, "outside model, text encoder and VAE", (key for key in self._tensors if not key.startswith(parts)), ())

    @property
    def load_device(self) -> torch.device | None:
        """The device that the options name, if any."""
        return self._options.get("load_device")

    def load_model(self) -> ModelPatcher:
        """The patcher of the diffusion model."""
        if self.config is None:
            return self._lone.load()
        return build_model(self.config, self._source, self._prefix, self._tensors, self._options)

    def model_bytes(self) -> int:
        """What it will take."""
        if self.config is None:
            return self._lone.kept_bytes()
        dtype = model_dtype(self.config, self._tensors, self._prefix, self._options)
        whole = kept_bytes(self._source, self._prefix, dtype)
        if self._prefix:
            return whole
        return whole - sum(kept_bytes(one.source, "", dtype) for one in _checkpoint_encoders(self.config, self._source).values())

    def load_clip(self) -> CLIP | None:
        """The text encoder, or None when tensors of it are missing."""
        if self.config is None:
            return None
        return checkpoint_clip(self.config, self._source, self._tensors, self._embedding_directory, self._te_options)

    def clip_bytes(self) -> int:
        """What it will take."""
        if self.config is None:
            return 0
        found = _checkpoint_encoders(self.config, self._source)
        return sum(kept_bytes(one.source, "", kept_part_dtype(one, self._te_options)) for one in found.values())

    def load_clip_vision(self) -> ClipVisionModel | None:
        """The image encoder, or None for a family without one."""
        source = self.clip_vision_source()
        return None if source is None else load_clip_vision_source(source)

    def clip_vision_bytes(self) -> int:
        """What it will take."""
        source, management = self.clip_vision_source(), comfy.model_management
        return 0 if source is None else kept_bytes(source, "", management.text_encoder_dtype(management.text_encoder_device()))

    def clip_vision_source(self) -> WeightSource | None:
        """The tensors below the image encoder's prefix, None for a family without one."""
        prefix = None if self.config is None else self.config.clip_vision_prefix
        return None if prefix is None else PrefixedSource(self._source, prefix)

    def vae_source(self) -> WeightSource:
        """The tensors below the autoencoder's prefix."""
        return first_prefix(self._source, self.config.vae_key_prefix) if self.config is not None else StateDictSource({})

    def load_vae(self) -> VAE | None:
        """The autoencoder, or None when the file holds none."""
        vae = VAE(self.vae_source(), device=self.load_device)
        return None if vae.first_stage_model is None else vae

    def vae_bytes(self) -> int:
        """What it will take."""
        management = comfy.model_management
        device = self.load_device or management.vae_device()
        source = self.vae_source()
        return kept_bytes(source, "", management.vae_dtype(device, working_dtypes(source)))


class CheckpointFile:
    """A checkpoint file and the options it is loaded with. It is opened when the first part is read, and closed with *files*."""

    def __init__(
        self, files: ModelFiles, embedding_directory: Any, model_options: Options | None, te_model_options: Options | None
    ) -> None:
        self._files = files
        self.embedding_directory = embedding_directory
        self.model_options, self.te_model_options = model_options, te_model_options

    @cached_property
    def parts(self) -> CheckpointParts:
        """What is in it; the first access opens the file."""
        return CheckpointParts(self._files.source(), self.embedding_directory, self.model_options, self.te_model_options)

    def all_parts(self, bypass: str = "") -> dict[str, Part]:
        """Every part by name, with the reason *bypass* not to cache it."""
        parts: dict[str, Part] = {"model": _ModelPart(self, bypass), "clip": _ClipPart(self, bypass), "vae": _VaePart(self, bypass)}
        return {**parts, "clip_vision": _ClipVisionPart(self, bypass)}

    def reloadable(self, value: Any, load_again: Callable[..., Any]) -> Any:
        """*value* (None stays None) with word of how to load it once more."""
        if value is not None:
            arguments = (self._files.paths[0], self.embedding_directory, self.model_options, self.te_model_options)
            patcher: Any = patcher_of(value)
            patcher.cached_patcher_init = (load_again, arguments)
        return value


class _ModelPart(Part[ModelPatcher]):
    """The diffusion model."""

    def __init__(self, file: CheckpointFile, bypass: str) -> None:
        super().__init__({"model_options": file.model_options or {}}, bypass)
        self._file = file

    def load(self) -> Any:
        return self._file.reloadable(self._file.parts.load_model(), load_checkpoint_guess_config_model_only)

    def estimate_bytes(self) -> int:
        return self._file.parts.model_bytes()


class _ClipPart(Part[CLIP | None]):
    """The text encoder."""

    def __init__(self, file: CheckpointFile, bypass: str) -> None:
        options = {"model_options": file.te_model_options or {}, "embedding_directory": file.embedding_directory, "in": "checkpoint"}
        super().__init__(options, bypass)
        self._file = file

    def load(self) -> CLIP | None:
        return self._file.reloadable(self._file.parts.load_clip(), load_checkpoint_guess_config_clip_only)

    def estimate_bytes(self) -> int:
        return self._file.parts.clip_bytes()


class _VaePart(Part[VAE | None]):
    """The autoencoder."""

    def __init__(self, file: CheckpointFile, bypass: str) -> None:
        super().__init__({"load_device": (file.model_options or {}).get("load_device"), "in": "checkpoint"}, bypass)
        self._file = file

    def load(self) -> VAE | None:
        return self._file.reloadable(self._file.parts.load_vae(), load_checkpoint_vae_patcher)

    def estimate_bytes(self) -> int:
        return self._file.parts.vae_bytes()


class _ClipVisionPart(Part[ClipVisionModel | None]):
    """The image encoder of an unCLIP checkpoint."""

    def __init__(self, file: CheckpointFile, bypass: str) -> None:
        super().__init__({"in": "checkpoint"}, bypass)
        self._file = file

    def load(self) -> ClipVisionModel | None:
        return self._file.parts.load_clip_vision()

    def estimate_bytes(self) -> int:
        return self._file.parts.clip_vision_bytes()


def checkpoint_clip(
    config: BASE, source: WeightSource, tensors: Mapping[str, torch.Tensor], embedding_directory: Any, options: Options
) -> CLIP | None:
    """The text encoder of the family *config* that a checkpoint holds, or None. *tensors* stand in for all of its tensors.

    Raises ``UnknownModelError`` for a text model of another kind.
    """
    parts = _checkpoint_encoders(config, source)
    if not parts:
        return None
    target = config.clip_target(tensors)
    if config.text_encoder_type is not None:
        combination = find_combination([found.kind.model for found in parts.values()], config.text_encoder_type)
        if combination is None:
            log.warning("%s holds %s alone, which make no text encoder for %s", source.name, ", ".join(parts), config.text_encoder_type)
            return None
        target = combination.make(parts)
    return None if target is None else build_clip(target, parts, embedding_directory, options, carried_tokenizers(source))


def _checkpoint_encoders(config: BASE, source: WeightSource) -> dict[str, FoundEncoder]:
    """The family's text models in a checkpoint, by name; none, which is logged, when one is missing that the family cannot do without.

    Raises ``UnknownModelError`` for a text model of another kind.
    """
    parts = {}
    for name, prefixes in config.text_encoder_parts().items():
        part = first_prefix(source, prefixes)
        if part.shapes():
            parts[name] = read_part(name, part, config.settings.get(name))
        elif config.text_encoder_type is None:
            log.warning("%s has no tensors of the text model %s (%s*); there is no text encoder", source.name, name, prefixes[0])
            return {}
    if config.text_encoder_type is not None and not parts:
        log.warning("%s has no tensors of a text model; there is no text encoder", source.name)
    return parts
