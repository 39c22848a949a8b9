"""Around one sampling: conditioning in the sampler's form, masks, the models that must be loaded, and cleaning up."""

from __future__ import annotations

import math
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import comfy.utils
from comfy.lazy_import import lazy_module
from comfy.sampling import cond_hooks
from comfy.sampling.cond_hooks import get_hooks_from_cond

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import SampledModel, SampledPatcher

model_management = lazy_module("comfy.model_management")

__all__ = [
    "cleanup_additional_models",
    "cleanup_models",
    "cond_has_hooks",
    "convert_cond",
    "estimate_memory",
    "get_additional_models",
    "get_additional_models_from_model_options",
    "get_hooks_from_cond",
    "get_models_from_cond",
    "prepare_mask",
    "prepare_model_patcher",
    "prepare_sampling",
]

Conds = Mapping[str, Sequence[dict[str, Any]]]


def prepare_mask(noise_mask: Tensor, shape: Sequence[int], device: Any) -> Tensor:
    """*noise_mask* in the shape of a latent, on *device*."""
    return comfy.utils.reshape_mask(noise_mask, shape).to(device)


def convert_cond(cond: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """The sampler's entries for conditioning as nodes pass it: pairs of cross-attention context (or None) and options."""
    entries = []
    for context, options in (pair[:2] for pair in cond):
        entry = {**options, "model_conds": options.get("model_conds", {}), "uuid": uuid.uuid4()}
        if context is not None:
            entry["cross_attn"] = context
        entries.append(entry)
    return entries


def cond_has_hooks(cond: Iterable[Sequence[Any]]) -> bool:
    """Whether conditioning as nodes pass it, or its control, carries hooks."""
    return any(
        "hooks" in options or ("control" in options and len(options["control"].get_extra_hooks()) > 0)
        for options in (pair[1] for pair in cond)
    )


def get_models_from_cond(cond: Iterable[Mapping[str, Any]], model_type: str) -> list[Any]:
    """What the entries hold under *model_type*, lists flattened, in order."""
    found: list[Any] = []
    for entry in cond:
        if model_type in entry:
            value = entry[model_type]
            found += value if isinstance(value, list) else [value]
    return found


def get_additional_models(conds: Conds, dtype: Any) -> tuple[list[Any], float]:
    """The models that conditioning needs beside the main one, and the bytes of working memory they need."""
    controls: dict[Any, None] = {}
    others: list[Any] = []
    for entries in conds.values():
        controls.update(dict.fromkeys(get_models_from_cond(entries, "control")))
        others += [told[1] for told in get_models_from_cond(entries, "gligen") if told[1] not in others]
        others += get_models_from_cond(entries, "additional_models")
    models = [model for control in controls for model in control.get_models()]
    return models + others, sum(control.inference_memory_requirements(dtype) for control in controls)


def get_additional_models_from_model_options(model_options: dict[str, Any] | None = None) -> list[Any]:
    """The models that hooks registered in *model_options* need."""
    return cond_hooks.additional_models(model_options)


def cleanup_additional_models(models: Iterable[Any]) -> None:
    """Let every model that can clean up do so."""
    for model in models:
        if hasattr(model, "cleanup"):
            model.cleanup()


def estimate_memory(model: SampledPatcher, noise_shape: Sequence[int], conds: Conds) -> tuple[float, float]:
    """Bytes of working memory for both sides of guidance at once, and for one alone."""
    shapes: dict[str, list[Any]] = defaultdict(list)
    largest: dict[str, list[Any]] = {}
    for entries in conds.values():
        for entry in entries:
            for name, shape in model.model.extra_conds_shapes(**entry).items():
                shapes[name].append(shape)
                if name not in largest or math.prod(shape) > math.prod(largest[name][0]):
                    largest[name] = [shape]
    batch, *rest = noise_shape
    both_sides = model.model.memory_required([batch * 2, *rest], cond_shapes=shapes)
    return both_sides, model.model.memory_required([batch, *rest], cond_shapes=largest)


def prepare_sampling(
    model: SampledPatcher,
    noise_shape: Sequence[int],
    conds: Conds,
    model_options: dict[str, Any] | None = None,
    force_full_load: bool = False,
    force_offload: bool = False,
) -> tuple[SampledModel, dict[str, Any], list[Any]]:
    """Load *model* and what *conds* need, through the PREPARE_SAMPLING wrappers.

    Returns the loaded model (not its patcher), the conditioning, and the other models that were loaded.
    """
    kind = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
    wrappers = comfy.patcher_extension.get_all_wrappers(kind, {} if model_options is None else model_options, is_model_options=True)
    executor = comfy.patcher_extension.WrapperExecutor.new_executor(_prepare_sampling, wrappers)
    return executor.execute(
        model, noise_shape, conds, model_options=model_options, force_full_load=force_full_load, force_offload=force_offload
    )


def _prepare_sampling(
    model: SampledPatcher,
    noise_shape: Sequence[int],
    conds: Conds,
    model_options: dict[str, Any] | None = None,
    force_full_load: bool = False,
    force_offload: bool = False,
) -> tuple[Any, Conds, list[Any]]:
    others, extra_bytes = get_additional_models(conds, model.model_dtype())
    others += get_additional_models_from_model_options(model_options)
    others += model.get_nested_additional_models()
    if force_offload:
        needed_bytes, least_bytes = math.inf, None
    else:
        needed_bytes, least_bytes = (amount + extra_bytes for amount in estimate_memory(model, noise_shape, conds))
    model_management.load_models_gpu(
        [model, *others], memory_required=needed_bytes, minimum_memory_required=least_bytes, force_full_load=force_full_load
    )
    return model.model, conds, others


def cleanup_models(conds: Conds, models: Iterable[Any]) -> None:
    """Clean up *models* and the control of *conds*."""
    cleanup_additional_models(models)
    cleanup_additional_models({control: None for entries in conds.values() for control in get_models_from_cond(entries, "control")})


def prepare_model_patcher(model: SampledPatcher, conds: dict[str, Any], model_options: dict[str, Any]) -> dict[str, Any]:
    """Add the patcher's own wrappers and callbacks to *model_options* and register the hooks of *conds*.

    Returns the parts of the options that must follow the model's device.
    """
    options = model_options.setdefault("transformer_options", {})
    for name, registered in (("wrappers", model.wrappers), ("callbacks", model.callbacks)):
        options[name] = comfy.patcher_extension.merge_nested_dicts(options.get(name, {}), registered)
    cond_hooks.register_hooks(model, conds, model_options)
    to_load = model_options.setdefault("to_load_options", {})
    for name in ("wrappers", "callbacks"):
        to_load[name] = comfy.patcher_extension.merge_nested_dicts(to_load.get(name, {}), options.get(name, {}))
    return to_load
