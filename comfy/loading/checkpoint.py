"""From a checkpoint to a patched-ready model, text encoder and autoencoder; each component reads only its own tensors."""

import logging
import math
from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import torch

import comfy.model_management
import comfy.model_patcher
from comfy import model_detection, supported_models
from comfy.families.clip_text import clip_text_config
from comfy.families.diffusers_unet import as_published_unet
from comfy.families.model_errors import UnknownModelError
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource, most_common_dtype
from comfy.images.vae import VAE, WORKING_DTYPES
from comfy.loading.parts import INDEPENDENT, Part, load_parts, open_cached_file
from comfy.ram_model_cache.storage import patcher_of
from comfy.supported_models_base import BASE
from comfy.text.encoder import CLIP, kept_text_dtype

Options = Mapping[str, Any]
Loaded = tuple[Any, CLIP | None, VAE | None, None]


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
    """(model patcher, CLIP, VAE, None) of a checkpoint file, None for what was not asked for or is not in it.

    Raises ``ModelFileError`` naming the file when it is no model of a supported family, truncated or damaged.
    """
    wanted = {"model": output_model, "clip": output_clip, "vae": output_vae}
    with CheckpointFile(ckpt_path, embedding_directory, model_options, te_model_options) as file:
        parts = load_parts([ckpt_path], {name: part for name, part in file.parts().items() if wanted[name]}, file.read_bytes)
        vae = parts.get("vae")
        if output_vae and vae is None:
            vae = VAE({})
        return parts.get("model"), parts.get("clip"), vae, None


def load_independent_part(
    name: str, ckpt_path: str, embedding_directory: Any, model_options: Options | None, te_model_options: Options | None
) -> Any:
    """The part *name* of a checkpoint with weights of its own, which the RAM model cache neither gives nor keeps."""
    with CheckpointFile(ckpt_path, embedding_directory, model_options, te_model_options) as file:
        part = replace(file.parts()[name], bypass=INDEPENDENT)
        return load_parts([ckpt_path], {name: part}, file.read_bytes)[name]


def load_checkpoint_guess_config_model_only(
    ckpt_path: str,
    embedding_directory: Any = None,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    disable_dynamic: bool = False,
) -> Any:
    """A new model patcher with weights of its own."""
    return load_independent_part("model", ckpt_path, embedding_directory, model_options, te_model_options)


def load_checkpoint_guess_config_clip_only(
    ckpt_path: str,
    embedding_directory: Any = None,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    disable_dynamic: bool = False,
) -> Any:
    """A new text encoder patcher with weights of its own."""
    return load_independent_part("clip", ckpt_path, embedding_directory, model_options, te_model_options).patcher


def load_checkpoint_vae_patcher(
    ckpt_path: str,
    embedding_directory: Any = None,
    model_options: Options | None = None,
    te_model_options: Options | None = None,
    disable_dynamic: bool = False,
) -> Any:
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
    """The same from tensors in memory, or None for an unknown family; used tensors leave *sd*."""
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
        logging.warning("%s", error)
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
    """The same from a weight source. A lone diffusion model comes back without text encoder and with an empty VAE."""
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

    Raises ``UnknownModelError`` when the source is no model of a supported family.
    """

    def __init__(
        self, source: WeightSource, embedding_directory: Any, model_options: Options | None, te_model_options: Options | None
    ) -> None:
        self._source = source
        self._embedding_directory = embedding_directory
        self._options, self._te_options = model_options or {}, te_model_options or {}
        self._tensors = described(source)
        self._prefix = model_detection.unet_prefix_from_state_dict(self._tensors)
        self.config = model_detection.model_config_from_unet(self._tensors, self._prefix, metadata=source.metadata)
        self._lone: DiffusionModel | None = None
        if self.config is None:
            logging.warning("%s is no complete checkpoint; trying it as a diffusion model alone", source.name)
            self._lone = DiffusionModel(source, model_options)

    @property
    def load_device(self) -> torch.device | None:
        """The device that the options name, if any."""
        return self._options.get("load_device")

    def load_model(self) -> Any:
        """The patcher of the diffusion model."""
        if self._lone is not None:
            return self._lone.load()
        return build_model(self.config, self._source, self._prefix, self._tensors, self._options)

    def model_bytes(self) -> int:
        """What it will take."""
        if self._lone is not None:
            return self._lone.kept_bytes()
        return kept_bytes(self._source, self._prefix, model_dtype(self.config, self._tensors, self._prefix, self._options))

    def load_clip(self) -> CLIP | None:
        """The text encoder, or None when tensors of it are missing."""
        if self.config is None:
            return None
        return _checkpoint_clip(self.config, self._source, self._tensors, self._embedding_directory, self._te_options)

    def clip_bytes(self) -> int:
        """What it will take."""
        if self.config is None:
            return 0
        sources = [first_prefix(self._source, prefixes) for prefixes in self.config.text_encoder_parts().values()]
        dtype = kept_text_dtype(sources, self._te_options)
        return sum(kept_bytes(source, "", dtype) for source in sources)

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
        return kept_bytes(self.vae_source(), "", management.vae_dtype(device, list(WORKING_DTYPES)))


class CheckpointFile:
    """The parts of a checkpoint file as the loaders want them. The file is opened when the first part is read, and closed once."""

    def __init__(self, path: str, embedding_directory: Any, model_options: Options | None, te_model_options: Options | None) -> None:
        self._path = path
        self._arguments = (embedding_directory, model_options, te_model_options)
        self._stack = ExitStack()
        self._opened: tuple[WeightSource, CheckpointParts] | None = None

    def __enter__(self) -> "CheckpointFile":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def read_bytes(self) -> int | None:
        """Bytes read so far (None: not known)."""
        return 0 if self._opened is None else self._opened[0].read_bytes

    def parts(self) -> dict[str, Part]:
        """Every part by name."""
        embedding_directory, model_options, te_model_options = self._arguments
        return {
            "model": Part(
                lambda: self._reloadable(self._content().load_model(), load_checkpoint_guess_config_model_only),
                lambda: self._content().model_bytes(),
                {"model_options": model_options or {}},
            ),
            "clip": Part(
                lambda: self._reloadable(self._content().load_clip(), load_checkpoint_guess_config_clip_only),
                lambda: self._content().clip_bytes(),
                {"model_options": te_model_options or {}, "embedding_directory": embedding_directory, "in": "checkpoint"},
            ),
            "vae": Part(
                lambda: self._reloadable(self._content().load_vae(), load_checkpoint_vae_patcher),
                lambda: self._content().vae_bytes(),
                {"load_device": (model_options or {}).get("load_device"), "in": "checkpoint"},
            ),
        }

    def _content(self) -> CheckpointParts:
        if self._opened is None:
            source = self._stack.enter_context(open_cached_file(self._path))
            self._opened = source, CheckpointParts(source, *self._arguments)
        return self._opened[1]

    def _reloadable(self, value: Any, load_again: Any) -> Any:
        """*value* with word of how to load it once more."""
        if value is not None:
            patcher_of(value).cached_patcher_init = (load_again, (self._path, *self._arguments))
        return value


def kept_bytes(source: WeightSource, prefix: str, dtype: torch.dtype | None) -> int:
    """Bytes of the tensors below *prefix* once floating ones are kept in *dtype* (None: as stored)."""
    total = 0
    for key, shape in source.shapes().items():
        if key.startswith(prefix):
            stored = source.dtype(key)
            total += math.prod(shape) * (dtype if dtype is not None and stored.is_floating_point else stored).itemsize
    return total


def described(source: WeightSource) -> dict[str, torch.Tensor]:
    """Stand-ins (meta tensors) for all of *source*'s tensors, with the values that detection looks at."""
    shapes = source.shapes()
    tensors = {key: torch.empty(shape, dtype=source.dtype(key), device="meta") for key, shape in shapes.items()}
    tensors.update(source.take([key for key in supported_models.DETECTION_VALUES if key in shapes], None))
    return tensors


def first_prefix(source: WeightSource, prefixes: tuple[str, ...]) -> PrefixedSource:
    """*source* below the first of *prefixes* that any tensor has, else below the first."""
    keys = source.shapes()
    return PrefixedSource(source, next((prefix for prefix in prefixes if any(key.startswith(prefix) for key in keys)), prefixes[0]))


def build_model(config: BASE, source: WeightSource, prefix: str, tensors: Mapping[str, torch.Tensor], options: Options) -> Any:
    """A model patcher for *config* with its weights from *source* below *prefix*, in the dtype that suits the device."""
    management = comfy.model_management
    load_device = options.get("load_device", management.get_torch_device())
    dtype = model_dtype(config, tensors, prefix, options)
    config.custom_operations = options.get("custom_operations")
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, load_device, list(config.supported_inference_dtypes)))
    model = config.get_model(tensors, prefix, device=torch.device("cpu"))
    model.load_model_weights(source, prefix)
    logging.info(
        "diffusion model from %s: %s, kept as %s, computed as %s", source.name, type(config).__name__, dtype, model.get_dtype_inference()
    )
    offload_device = options.get("offload_device", management.unet_offload_device())
    return comfy.model_patcher.CoreModelPatcher(model, load_device=load_device, offload_device=offload_device)


def model_dtype(config: BASE, tensors: Mapping[str, torch.Tensor], prefix: str, options: Options) -> torch.dtype:
    """The dtype the diffusion model below *prefix* is kept in."""
    asked = options.get("dtype", options.get("weight_dtype"))
    if asked is not None:
        return asked
    own = {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    return comfy.model_management.unet_dtype(
        model_params=sum(math.prod(tensor.shape) for tensor in own.values()),
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=most_common_dtype([StateDictSource(own)]),
    )


def _checkpoint_clip(
    config: BASE, source: WeightSource, tensors: Mapping[str, torch.Tensor], embedding_directory: Any, options: Options
) -> CLIP | None:
    parts = {}
    for name, prefixes in config.text_encoder_parts().items():
        part = first_prefix(source, prefixes)
        if not part.shapes():
            logging.warning("%s has no tensors of the text model %s (%s*); there is no text encoder", source.name, name, prefixes[0])
            return None
        parts[name] = with_text_model_prefix(part)
    target = config.clip_target(tensors)
    return None if target is None else build_clip(target, parts, embedding_directory, options, config.settings)


def with_text_model_prefix(source: WeightSource) -> WeightSource:
    """*source* itself, or under ``text_model.`` when it is in transformers' names but lacks that prefix (old files)."""
    return PrefixedSource(source, "", "text_model.") if "embeddings.token_embedding.weight" in source.shapes() else source


def build_clip(target: Any, parts: Mapping[str, WeightSource], embedding_directory: Any, options: Options, settings: Options) -> CLIP:
    """A text encoder of *target*'s classes, sized by what *parts* (text model name → its tensors) hold."""
    sizes = {f"{name}_model_config": clip_text_config(part, settings.get(name), name) for name, part in parts.items()}
    return CLIP(target, embedding_directory=embedding_directory, model_options={**sizes, **options}, sources=parts)


def load_diffusion_model(unet_path: str, model_options: Options | None = None, disable_dynamic: bool = False) -> Any:
    """The model patcher of a file that holds a diffusion model, alone or in a checkpoint, in published or diffusers' names.

    Raises ``ModelFileError`` naming the file.
    """
    return _diffusion_model_file(unet_path, model_options, "")


def load_independent_diffusion_model(unet_path: str, model_options: Options | None = None) -> Any:
    """The same with weights of its own."""
    return _diffusion_model_file(unet_path, model_options, INDEPENDENT)


def _diffusion_model_file(unet_path: str, model_options: Options | None, bypass: str) -> Any:
    with ExitStack() as stack:
        file = cache(lambda: DiffusionModel(stack.enter_context(open_cached_file(unet_path)), model_options))

        def load() -> Any:
            model = file().load()
            model.cached_patcher_init = (load_independent_diffusion_model, (unet_path, model_options))
            return model

        part = Part(load, lambda: file().kept_bytes(), {"model_options": model_options or {}}, bypass)
        return load_parts([unet_path], {"model": part}, lambda: file().source.read_bytes)["model"]


def load_diffusion_model_state_dict(
    sd: MutableMapping[str, torch.Tensor],
    model_options: Options | None = None,
    metadata: Mapping[str, str] | None = None,
    disable_dynamic: bool = False,
) -> Any:
    """The same from tensors in memory, or None for an unknown family; used tensors leave *sd*."""
    try:
        return load_diffusion_model_source(StateDictSource(sd, "the state dict", metadata, consume=True), model_options)
    except UnknownModelError as error:
        logging.warning("%s", error)
        return None


def load_diffusion_model_source(source: WeightSource, model_options: Options | None = None) -> Any:
    """The same from a weight source. Raises ``UnknownModelError``, naming it, for an unknown family."""
    return DiffusionModel(source, model_options).load()


class DiffusionModel:
    """A diffusion model alone in an open source. Raises ``UnknownModelError``, naming it, for an unknown family."""

    def __init__(self, source: WeightSource, model_options: Options | None) -> None:
        self.source = as_published_unet(source)
        self._options = model_options or {}
        self._tensors = described(self.source)
        prefix = model_detection.unet_prefix_from_state_dict(self._tensors)
        self._prefix = prefix if any(key.startswith(prefix) for key in self._tensors) else ""
        config = model_detection.model_config_from_unet(self._tensors, self._prefix, metadata=self.source.metadata)
        if config is None:
            found = model_detection.describe_tensors(self._tensors)
            raise UnknownModelError(
                f"{self.source.name} holds no model of a supported family. Found {found}. Supported: {supported_models.SUPPORTED_FAMILIES}"
            )
        self._config = config

    def kept_bytes(self) -> int:
        """What its weights will take."""
        return kept_bytes(self.source, self._prefix, model_dtype(self._config, self._tensors, self._prefix, self._options))

    def load(self) -> Any:
        """Its patcher."""
        return build_model(self._config, self.source, self._prefix, self._tensors, self._options)
