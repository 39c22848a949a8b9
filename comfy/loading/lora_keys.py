"""The names that LoRA trainers give to weights: kohya's, diffusers', PEFT's and the published ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from comfy.dit.registry import family_of
from comfy.families.diffusers_names import vector_names
from comfy.families.unet_key_names import unet_to_diffusers
from comfy.patching.model_weights import ModelWeights

DIFFUSION_PREFIX = "diffusion_model."
LORA_CLIP_MAP = {
    part: part.replace(".", "_")
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
}
ENCODER_LAYERS = 32
T5_PREFIX = "t5xxl.transformer."


def _without_suffix(keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name without ".weight", key) of the keys that are weights."""
    return ((key.removesuffix(".weight"), key) for key in keys if key.endswith(".weight"))


def model_lora_keys_unet(model: torch.nn.Module, key_map: dict[Any, Any] | None = None) -> dict[Any, Any]:
    """Add to *key_map* what LoRA files may call the weights of the diffusion model *model*. Returns it."""
    names: dict[Any, Any] = {} if key_map is None else key_map
    weights = ModelWeights(model)
    keys = [key for key in weights if key.startswith(DIFFUSION_PREFIX)]
    names.update({key: key for key in keys if not key.endswith(".weight")})
    for name, key in _without_suffix(keys):
        names[f"lora_unet_{name.removeprefix(DIFFUSION_PREFIX).replace('.', '_')}"] = key
        names[name] = key
    for name, key in _without_suffix_of_pairs(_diffusers_names(model, weights, keys)):
        flat = name.replace(".", "_")
        names[f"lora_unet_{flat}"] = key
        names[f"lycoris_{flat}"] = key
        processor = (
            name.replace(".to_", ".processor.to_").removesuffix(".0")
            if name.endswith(".to_out.0")
            else name.replace(".to_", ".processor.to_")
        )
        for prefix in ("", "unet."):
            names[f"{prefix}{processor}"] = key
            names[f"{prefix}{name}"] = key
        names[f"base_model.model.{name}"] = key
    config = getattr(getattr(model, "model_config", None), "unet_config", None)
    family = family_of(config)
    if family is not None and config is not None:
        names.update(family.lora_names(config, keys))
    return names


def _diffusers_names(model: torch.nn.Module, weights: ModelWeights, keys: Iterable[str]) -> dict[str, str]:
    """diffusers' name of each weight that has one of its own: from the family's layout, else from the modules that run."""
    config = getattr(getattr(model, "model_config", None), "unet_config", None)
    published = unet_to_diffusers(config) if config else {}
    published |= {name: key for key, name in vector_names().items()} if published else {}
    known = set(keys)
    names = {name: DIFFUSION_PREFIX + key for name, key in published.items() if DIFFUSION_PREFIX + key in known}
    for key in keys:
        if weights.is_whole(key):
            path = weights.paths(key)[0]
            if path != key:
                names.setdefault(path.removeprefix(DIFFUSION_PREFIX), key)
    return names


def _without_suffix_of_pairs(names: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((name.removesuffix(".weight"), key) for name, key in names.items() if name.endswith(".weight"))


def model_lora_keys_clip(model: torch.nn.Module, key_map: dict[Any, Any] | None = None) -> dict[Any, Any]:
    """Add to *key_map* what LoRA files may call the weights of the text encoders in *model*. Returns it.

    kohya numbers the encoders (``lora_te1_``, ``lora_te2_``) or not (``lora_te_``); diffusers says ``text_encoder.``,
    ``text_encoder_2.``.
    """
    names: dict[Any, Any] = {} if key_map is None else key_map
    keys = ModelWeights(model).keys()
    known = set(keys)
    for name, key in _without_suffix(keys):
        names[f"text_encoders.{name}"] = key
        wrapper, found, inner = name.partition(".transformer.")
        if found and wrapper and not name.startswith("clip_"):
            names[f"text_encoders.transformer.{inner}"] = key
    names.update(_sole_decoder_names(keys))
    has_l = any(key.startswith("clip_l.transformer.text_model.encoder.layers.") for key in keys)
    first = (("lora_te", "lora_te1"), ("text_encoder",))
    second = (("lora_te2",), ("text_encoder_2",)) if has_l else (("lora_te", "lora_prior_te"), ("text_encoder",))
    for encoder, (kohya, diffusers) in (("clip_h", first), ("clip_l", first), ("clip_g", second)):
        _add_encoder_names(names, known, encoder, kohya, diffusers)
    t5 = [key for key in keys if key.startswith(T5_PREFIX) and key.endswith(".weight")]
    has_g = any(key.startswith("clip_g.transformer.text_model.encoder.layers.") for key in keys)
    for prefix in _t5_prefixes(has_l, has_g):
        names.update({f"{prefix}_{key[len(T5_PREFIX) : -len('.weight')].replace('.', '_')}": key for key in t5})
    for key, aliases in (
        ("clip_g.transformer.text_projection.weight", ("lora_prior_te_text_projection", "lora_te2_text_projection")),
        ("clip_l.transformer.text_projection.weight", ("lora_te1_text_projection",)),
    ):
        if key in known:
            names.update(dict.fromkeys(aliases, key))
    return names


def _sole_decoder_names(keys: Iterable[str]) -> dict[str, str]:
    """What kohya's trainer calls the weights of a language model that is the only text model."""
    weights = [key for key in keys if key.endswith(".weight")]
    parts = {key.partition(".")[0] for key in weights}
    inner = f"{next(iter(parts))}.transformer.model." if len(parts) == 1 else None
    bare = [(key, key[len(inner) : -len(".weight")]) for key in weights if inner is not None and key.startswith(inner)]
    return {f"lora_te_{name.replace('.', '_')}": key for key, name in bare}


def _t5_prefixes(has_l: bool, has_g: bool) -> tuple[str, ...]:
    """What OneTrainer calls T5-XXL: the encoder after those of CLIP that are there, and with CLIP-L alone also the third."""
    return ("lora_te2", "lora_te3") if has_l and not has_g else (f"lora_te{1 + has_l + has_g}",)


def _add_encoder_names(names: dict[Any, Any], known: set[str], encoder: str, kohya: Iterable[str], diffusers: Iterable[str]) -> None:
    for layer in range(ENCODER_LAYERS):
        for part, flat in LORA_CLIP_MAP.items():
            key = f"{encoder}.transformer.text_model.encoder.layers.{layer}.{part}.weight"
            if key in known:
                names.update({f"{prefix}_text_model_encoder_layers_{layer}_{flat}": key for prefix in kohya})
                names.update({f"{prefix}.text_model.encoder.layers.{layer}.{part}": key for prefix in diffusers})
