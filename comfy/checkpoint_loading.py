"""From a checkpoint to a patched-ready model, text encoder and autoencoder; each component reads only its own tensors."""

import logging
import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch

import comfy.model_management
import comfy.model_patcher
from comfy import model_detection, supported_models
from comfy.families.clip_text import clip_text_config
from comfy.families.diffusers_unet import as_published_unet
from comfy.families.model_errors import UnknownModelError
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource
from comfy.model_files import open_model_file
from comfy.supported_models_base import BASE
from comfy.text_encoder import CLIP
from comfy.vae import VAE

Options = Mapping[str, Any]
Loaded = tuple[Any, CLIP | None, VAE | None, None]


def load_checkpoint_guess_config(ckpt_path: str, output_vae: bool = True, output_clip: bool = True, output_clipvision: bool = False,
                                 embedding_directory: Any = None, output_model: bool = True, model_options: Options | None = None,
                                 te_model_options: Options | None = None, disable_dynamic: bool = False) -> Loaded:
    """(model patcher, CLIP, VAE, None) of a checkpoint file, None for what was not asked for or is not in it.

    Raises ``ModelFileError`` naming the file when it is no model of a supported family, truncated or damaged.
    """
    with open_model_file(ckpt_path) as source:
        model, clip, vae, vision = load_checkpoint_source(source, output_vae, output_clip, embedding_directory, output_model,
                                                          model_options, te_model_options)
    common = (embedding_directory, model_options, te_model_options)
    if model is not None:
        model.cached_patcher_init = (load_checkpoint_guess_config_model_only, (ckpt_path, *common))
    if clip is not None:
        clip.patcher.cached_patcher_init = (load_checkpoint_guess_config_clip_only, (ckpt_path, *common))
    if vae is not None and vae.first_stage_model is not None:
        vae.patcher.cached_patcher_init = (load_checkpoint_vae_patcher, (ckpt_path, *common))
    return model, clip, vae, vision


def load_checkpoint_guess_config_model_only(ckpt_path: str, embedding_directory: Any = None, model_options: Options | None = None,
                                            te_model_options: Options | None = None, disable_dynamic: bool = False) -> Any:
    """A new model patcher with weights of its own."""
    return load_checkpoint_guess_config(ckpt_path, False, False, False, embedding_directory, True, model_options, te_model_options)[0]


def load_checkpoint_guess_config_clip_only(ckpt_path: str, embedding_directory: Any = None, model_options: Options | None = None,
                                           te_model_options: Options | None = None, disable_dynamic: bool = False) -> Any:
    """A new text encoder patcher with weights of its own."""
    return load_checkpoint_guess_config(ckpt_path, False, True, False, embedding_directory, False, model_options,
                                        te_model_options)[1].patcher


def load_checkpoint_vae_patcher(ckpt_path: str, embedding_directory: Any = None, model_options: Options | None = None,
                                te_model_options: Options | None = None, disable_dynamic: bool = False) -> Any:
    """A new autoencoder patcher with weights of its own."""
    return load_checkpoint_guess_config(ckpt_path, True, False, False, embedding_directory, False, model_options,
                                        te_model_options)[2].patcher


def load_state_dict_guess_config(sd: MutableMapping[str, torch.Tensor], output_vae: bool = True, output_clip: bool = True,
                                 output_clipvision: bool = False, embedding_directory: Any = None, output_model: bool = True,
                                 model_options: Options | None = None, te_model_options: Options | None = None,
                                 metadata: Mapping[str, str] | None = None, disable_dynamic: bool = False) -> Loaded | None:
    """The same from tensors in memory, or None for an unknown family; used tensors leave *sd*."""
    try:
        return load_checkpoint_source(StateDictSource(sd, "the state dict", metadata, consume=True), output_vae, output_clip,
                                      embedding_directory, output_model, model_options, te_model_options)
    except UnknownModelError as error:
        logging.warning("%s", error)
        return None


def load_checkpoint_source(source: WeightSource, output_vae: bool = True, output_clip: bool = True, embedding_directory: Any = None,
                           output_model: bool = True, model_options: Options | None = None,
                           te_model_options: Options | None = None) -> Loaded:
    """The same from a weight source. A lone diffusion model comes back without text encoder and with an empty VAE."""
    tensors = described(source)
    prefix = model_detection.unet_prefix_from_state_dict(tensors)
    config = model_detection.model_config_from_unet(tensors, prefix, metadata=source.metadata)
    if config is None:
        logging.warning("%s is no complete checkpoint; trying it as a diffusion model alone", source.name)
        return load_diffusion_model_source(source, model_options), None, VAE({}), None
    model = build_model(config, source, prefix, tensors, model_options or {}) if output_model else None
    vae = clip = None
    if output_vae:
        vae = VAE(first_prefix(source, config.vae_key_prefix), device=(model_options or {}).get("load_device"))
    if output_clip:
        clip = _checkpoint_clip(config, source, tensors, embedding_directory, te_model_options or {})
    return model, clip, vae, None


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
    own = {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    load_device = options.get("load_device", management.get_torch_device())
    dtype = options.get("dtype", options.get("weight_dtype"))
    if dtype is None:
        dtype = management.unet_dtype(model_params=sum(math.prod(tensor.shape) for tensor in own.values()),
                                      supported_dtypes=list(config.supported_inference_dtypes), weight_dtype=_most_common_dtype(own))
    config.custom_operations = options.get("custom_operations")
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, load_device, list(config.supported_inference_dtypes)))
    model = config.get_model(tensors, prefix, device=torch.device("cpu"))
    model.load_model_weights(source, prefix)
    logging.info("diffusion model from %s: %s, kept as %s, computed as %s", source.name, type(config).__name__, dtype,
                 model.get_dtype_inference())
    offload_device = options.get("offload_device", management.unet_offload_device())
    return comfy.model_patcher.CoreModelPatcher(model, load_device=load_device, offload_device=offload_device)


def _most_common_dtype(tensors: Mapping[str, torch.Tensor]) -> torch.dtype | None:
    elements: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        elements[tensor.dtype] = elements.get(tensor.dtype, 0) + math.prod(tensor.shape)
    return max(elements, key=lambda dtype: elements[dtype], default=None)


def _checkpoint_clip(config: BASE, source: WeightSource, tensors: Mapping[str, torch.Tensor], embedding_directory: Any,
                     options: Options) -> CLIP | None:
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
    with open_model_file(unet_path) as source:
        model = load_diffusion_model_source(source, model_options)
    model.cached_patcher_init = (load_diffusion_model, (unet_path, model_options))
    return model


def load_diffusion_model_state_dict(sd: MutableMapping[str, torch.Tensor], model_options: Options | None = None,
                                    metadata: Mapping[str, str] | None = None, disable_dynamic: bool = False) -> Any:
    """The same from tensors in memory, or None for an unknown family; used tensors leave *sd*."""
    try:
        return load_diffusion_model_source(StateDictSource(sd, "the state dict", metadata, consume=True), model_options)
    except UnknownModelError as error:
        logging.warning("%s", error)
        return None


def load_diffusion_model_source(source: WeightSource, model_options: Options | None = None) -> Any:
    """The same from a weight source. Raises ``UnknownModelError``, naming it, for an unknown family."""
    source = as_published_unet(source)
    tensors = described(source)
    prefix = model_detection.unet_prefix_from_state_dict(tensors)
    if not any(key.startswith(prefix) for key in tensors):
        prefix = ""
    config = model_detection.model_config_from_unet(tensors, prefix, metadata=source.metadata)
    if config is None:
        raise UnknownModelError(f"{source.name} holds no model of a supported family. Found {model_detection.describe_tensors(tensors)}. "
                                f"Supported: {supported_models.SUPPORTED_FAMILIES}")
    return build_model(config, source, prefix, tensors, model_options or {})


