"""Build one model of a known family from its part of a weight source: the diffusion model or the text encoder."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch

import comfy.model_management
import comfy.model_patcher
from comfy import supported_models
from comfy.cli_args import args
from comfy.cli_flags import PerformanceFeature
from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource, most_common_dtype
from comfy.model_patcher import ModelPatcher
from comfy.quantisation import kitchen
from comfy.quantisation import linear as quantised_linear
from comfy.supported_models_base import BASE
from comfy.text.encoder import CLIP, kept_part_dtype
from comfy.text.kinds import FoundEncoder
from comfy.text.tokenizer_files import CARRIED

log = logging.getLogger(__name__)

Options = Mapping[str, Any]


def kept_bytes(source: WeightSource, prefix: str, dtype: torch.dtype | None) -> int:
    """Bytes of the tensors below *prefix* once floating ones are kept in *dtype* (None: as stored) and quantised ones as they are."""
    total = 0
    for key, shape in source.shapes().items():
        if key.startswith(prefix):
            stored, fixed = source.dtype(key), source.fixed_bytes(key)
            own = math.prod(shape) * (dtype if dtype is not None and stored.is_floating_point else stored).itemsize
            total += own if fixed is None else fixed
    return total


def described(source: WeightSource) -> dict[str, torch.Tensor]:
    """Stand-ins (meta tensors) for all of *source*'s tensors, with the values that detection looks at."""
    shapes = source.shapes()
    tensors = {key: torch.empty(shape, dtype=source.dtype(key), device="meta") for key, shape in shapes.items()}
    tensors.update(source.take(supported_models.detection_values(shapes), None))
    return tensors


def first_prefix(source: WeightSource, prefixes: tuple[str, ...]) -> PrefixedSource:
    """*source* below the first of *prefixes* that any tensor has, else below the first."""
    keys = source.shapes()
    return PrefixedSource(source, next((prefix for prefix in prefixes if any(key.startswith(prefix) for key in keys)), prefixes[0]))


def build_model(config: BASE, source: WeightSource, prefix: str, tensors: Mapping[str, torch.Tensor], options: Options) -> ModelPatcher:
    """A model patcher for *config* with its weights from *source* below *prefix*, in the dtype that suits the device."""
    management = comfy.model_management
    load_device = options.get("load_device", management.get_torch_device())
    dtype = model_dtype(config, tensors, prefix, options)
    config.custom_operations = options.get("custom_operations")
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, load_device, list(config.supported_inference_dtypes)))
    model = config.get_model(tensors, prefix, device=torch.device("cpu"))
    model.load_model_weights(source, prefix)
    model.source_name = source.name
    quantised_linear.allow_few_bits(model, lambda layer: multiplies(layer.format.name, load_device))
    asked = options.get("fp8_optimizations") or PerformanceFeature.Fp8MatrixMultiplication in (args.fast or ())
    if asked and dtype == torch.float8_e4m3fn:
        _multiply_plain_fp8(model, source.name, load_device)
    log.info(
        "diffusion model from %s: %s, kept as %s, computed as %s", source.name, type(config).__name__, dtype, model.get_dtype_inference()
    )
    offload_device = options.get("offload_device", management.unet_offload_device())
    return comfy.model_patcher.CoreModelPatcher(model, load_device=load_device, offload_device=offload_device)


def _multiply_plain_fp8(model: torch.nn.Module, name: str, device: torch.device) -> None:
    """Make products of plain fp8 weights in fp8 on *device*, or say why not."""
    if not comfy.model_management.supports_fp8_compute(device):
        log.warning("%s: products in fp8 were asked for, but %s does not make them; weights are cast at each call", name, device)
    elif not kitchen.is_installed():
        log.warning("%s: products in fp8 were asked for, which need comfy-kitchen: %s", name, kitchen.INSTALL)
    else:
        log.info("%s: %d layers make products in fp8", name, quantised_linear.allow_plain_fp8(model))


def multiplies(format_name: str, device: torch.device) -> bool:
    """Whether products of weights in that format are made in few bits on *device*; int8 ones are everywhere, as in ComfyUI."""
    if format_name.startswith("float8_"):
        return comfy.model_management.supports_fp8_compute(device)
    if format_name in ("mxfp8", "nvfp4"):
        return comfy.model_management.supports_nvfp4_compute(device)
    return True


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


def build_clip(
    target: Any, parts: Mapping[str, FoundEncoder], embedding_directory: Any, options: Options, tokenizers: Mapping[str, Any] | None = None
) -> CLIP:
    """A text encoder of *target*'s classes, of what *parts* (text model name → what was found) hold; *tokenizers* are for all of them."""
    sizes = {f"{name}_model_config": found.config for name, found in parts.items()}
    dtypes = {f"{name}_dtype": kept_part_dtype(found, options) for name, found in parts.items()}
    clip = CLIP(
        target,
        embedding_directory=embedding_directory,
        tokenizer_data={**(tokenizers or {}), **tokenizer_data(parts)},
        model_options={**sizes, **dtypes, **options},
        sources={name: found.source for name, found in parts.items()},
    )
    clip.cond_stage_model.source_name = " and ".join(dict.fromkeys(found.source.name for found in parts.values()))
    return clip


def tokenizer_data(parts: Mapping[str, FoundEncoder]) -> dict[str, Any]:
    """What *parts* say of their tokenizers: "parts" (their names), by name the file and what it carries, lengths of CLIP's chunks."""
    data: dict[str, Any] = {"parts": tuple(parts)}
    for name, found in parts.items():
        data[name] = {"file": found.source.name, **carried_tokenizers(found.source, "")}
        if isinstance(found.config, ClipTextConfig):
            data[f"{name}_max_length"] = found.config.positions
    return data


def carried_tokenizers(source: WeightSource, prefix: str = "text_encoders.") -> dict[str, torch.Tensor]:
    """The tokenizers that *source* holds below *prefix*, as bytes, by the names that they have in files."""
    taken = source.take([prefix + name for name in CARRIED if prefix + name in source.shapes()], None)
    return {key.removeprefix(prefix): tensor.clone() for key, tensor in taken.items()}
