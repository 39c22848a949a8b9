"""Builds a ControlNet from a file: reads sizes from tensor shapes, and makes the parameters views of the tensors that were read.

It knows three kinds of names: the published ones, with or without ``control_model.``, and diffusers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

import comfy.model_management
import comfy.ops
from comfy.cldm.cldm import ControlNet
from comfy.cldm.union import UnionControlNet
from comfy.control.qwen import FUN_MARKS, INSTANTX_MARKS, build_qwen_control, is_qwen_control
from comfy.control.sd35 import build_sd35_control, is_sd35_control
from comfy.families.diffusers_names import control_names
from comfy.families.diffusers_unet import RenamedSource, read_diffusers_config
from comfy.families.family_settings import family_settings
from comfy.families.key_accounts import outside, say_unused
from comfy.families.model_errors import IncompleteModelError, UnknownModelError, naming_file
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import UNetConfig, count_blocks, read_unet_config
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource
from comfy.model_detection import describe_tensors

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

Shape = tuple[int, ...]

PREFIX = "control_model."
WHAT = "the ControlNet"
DIFFUSERS_MARK = "controlnet_cond_embedding.conv_in.weight"
PUBLISHED_MARK = "zero_convs.0.0.weight"
DIFFERENCE_MARK = "difference"
UNION_MARK = "task_embedding"
# In diffusers' and in the published names, and of transformers.
STEMS = (DIFFUSERS_MARK, "input_hint_block.0.weight", "pos_embed_input.proj.weight", INSTANTX_MARKS[0], FUN_MARKS[0])
# Of transformers, by the configurations of the models they are for: what tells such files, and what builds their networks.
TRANSFORMERS = {"SD3": (is_sd35_control, build_sd35_control), "QwenImage": (is_qwen_control, build_qwen_control)}
SUPPORTED = "ControlNets of SD 1.x, SDXL, SD 3.5 and Qwen-Image"
UNSUPPORTED_MARKS = {"lora_controlnet": "a control LoRA", "controlnet_blocks.0.weight": "a ControlNet for a transformer model"}


def build_control_network(source: WeightSource, model: ModelPatcher | None = None, options: Mapping[str, Any] | None = None) -> Any:
    """Build the network of *source* with its weights, in the dtype that suits the device.

    *model* (a patcher) supplies the base weights of files that hold differences only. Raises ``UnknownModelError``, naming the
    source, for anything but the supported ControlNets, and ``IncompleteModelError`` for missing tensors.
    """
    source = plain_weights(source)
    shapes = source.shapes()
    for is_one, build in TRANSFORMERS.values():
        if is_one(shapes):
            dtype = kept_dtype(source, options or {})
            with naming_file(source.name, WHAT):
                return build(source, dtype, _operations(dtype, options or {}))
    for mark, kind in UNSUPPORTED_MARKS.items():
        if mark in shapes:
            raise UnknownModelError(f"{source.name} is {kind}, which is not supported; supported: {SUPPORTED}")
    if DIFFERENCE_MARK in shapes:
        source = _with_base_weights(source, model)
    if any(key.startswith(PREFIX) for key in shapes):
        say_unused(source.name, WHAT, outside(shapes, (PREFIX,)), ())
        source = PrefixedSource(source, PREFIX)
        shapes = source.shapes()
    if DIFFUSERS_MARK not in shapes and PUBLISHED_MARK not in shapes:
        raise UnknownModelError(f"{source.name} is not a ControlNet. Found {describe_tensors(shapes)}")
    with naming_file(source.name, WHAT):
        network = _make_network(source, shapes, options or {})
        if DIFFUSERS_MARK in shapes:
            source = _in_published_names(source, network)
    load_published(network, source, network.dtype, WHAT)
    return network


def kept_dtype(source: WeightSource, options: Mapping[str, Any]) -> torch.dtype:
    """The dtype in which to keep the weights in *source*: the option ``dtype``, else one that suits the device and the file."""
    if options.get("dtype") is not None:
        return options["dtype"]
    stored = next((source.dtype(key) for key in source.shapes() if key.endswith(STEMS)), None)
    return comfy.model_management.unet_dtype(model_params=-1, weight_dtype=stored)


def _make_network(source: WeightSource, shapes: Mapping[str, Shape], options: Mapping[str, Any]) -> ControlNet:
    config = _read_config(source, shapes)
    if config.adm_in_channels is None and any(key.startswith(("label_emb.", "add_embedding.")) for key in shapes):
        raise IncompleteModelError(f"{WHAT} in {source.name}: the first tensor of its vector embedding is missing")
    stem, dtype = next(key for key in shapes if key.endswith(STEMS)), kept_dtype(source, options)
    operations = _operations(dtype, options)
    own = (shapes[stem][1], _hint_widths(shapes), dtype)
    if UNION_MARK in shapes:
        return UnionControlNet(shapes[UNION_MARK][0], *own, operations=operations, **config.as_dict())
    return ControlNet(*own, operations=operations, **config.as_dict())


def _operations(dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
    management = comfy.model_management
    cast = management.unet_manual_cast(dtype, management.get_torch_device())
    return options.get("custom_operations") or comfy.ops.pick_operations(dtype, cast)


def _read_config(source: WeightSource, shapes: Mapping[str, Shape]) -> UNetConfig:
    settings = family_settings(source.metadata, source.name).get("unet", {})
    if DIFFUSERS_MARK in shapes:
        return read_diffusers_config({**shapes, "conv_out.weight": (shapes["conv_in.weight"][1],)}, settings)
    stem = shapes["input_blocks.0.0.weight"]
    config = read_unet_config({**shapes, "out.2.weight": (stem[1],)}, "", settings)
    if config is None:
        raise UnknownModelError(f"{source.name} is not a ControlNet of SD 1.x or SDXL. Found {describe_tensors(shapes)}")
    return config


def _hint_widths(shapes: Mapping[str, Shape]) -> tuple[int, ...]:
    """The channels of the stem: those of its first layer, then of every second layer."""
    if DIFFUSERS_MARK in shapes:
        blocks = count_blocks(shapes, "controlnet_cond_embedding.blocks.{}.")
        names = [DIFFUSERS_MARK, *(f"controlnet_cond_embedding.blocks.{index}.weight" for index in range(1, blocks, 2))]
    else:
        layers = sorted(int(key.split(".")[1]) for key in shapes if key.startswith("input_hint_block.") and key.endswith(".weight"))
        names = [f"input_hint_block.{layer}.weight" for layer in layers[:-1] if layer % 4 == 0]
    return tuple(shapes[name][0] for name in names)


def _in_published_names(source: WeightSource, network: ControlNet) -> WeightSource:
    """*source*, which has diffusers' names, under the published ones of the tensors that are there."""
    shapes = source.shapes()
    names = control_names(network.config, (len(network.input_hint_block) + 1) // 2)
    if UNION_MARK in shapes:
        names |= _union_names(network)
    say_unused(source.name, WHAT, shapes, set(names.values()))
    missing = sorted(name for name in names.values() if name not in shapes)
    if missing:
        raise IncompleteModelError(f"{WHAT} in {source.name}: {len(missing)} of {len(names)} tensors are missing, first {missing[0]}")
    return RenamedSource(source, names, {key: shapes[name] for key, name in names.items()})


def _union_names(network: ControlNet) -> dict[str, str]:
    """The file's names of what union ControlNets have beside others, by the network's."""
    own = ("task_embedding", "transformer_layes.", "spatial_ch_projs.", "control_add_embedding.")
    return {name: name.replace(".in_proj.", ".in_proj_") for name, _ in network.named_parameters() if name.startswith(own)}


def _with_base_weights(source: WeightSource, model: ModelPatcher | None) -> WeightSource:
    """*source* with the weights of *model* added to the tensors of the same name."""
    tensors = source.take([key for key in source.shapes() if key != DIFFERENCE_MARK], None)
    if model is None:
        raise UnknownModelError(f"{source.name} holds the difference to a model; load it with the node that takes one (diff)")
    comfy.model_management.load_models_gpu([model])
    base = model.model_state_dict()
    for key in tensors:
        weight = base.get("diffusion_model." + key.removeprefix(PREFIX))
        if weight is not None:
            tensors[key] = tensors[key] + weight.to(tensors[key])
    return StateDictSource(tensors, source.name, source.metadata)
