"""LoRA files: which of their keys belong to which weight, and computing changed weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import comfy.model_management
from comfy.loading.lora_keys import LORA_CLIP_MAP, model_lora_keys_clip, model_lora_keys_unet
from comfy.weight_adapter import WeightAdapterBase, adapters
from comfy.weight_adapter.base import CHANGE_ERRORS, pad_tensor_to_shape, unchanged

__all__ = [
    "LORA_CLIP_MAP",
    "calculate_shape",
    "calculate_weight",
    "load_lora",
    "model_lora_keys_clip",
    "model_lora_keys_unet",
    "pad_tensor_to_shape",
]

log = logging.getLogger(__name__)
SUBTRACTED_PARTS = 8  # that another model's weight is compared with this one's in


def load_lora(lora: Mapping[str, Tensor], to_load: Mapping[str, Any], log_missing: bool = True) -> dict[Any, Any]:
    """Patches for ``add_patches`` from the tensors *lora*; *to_load* maps names in such files to weights.

    Keys that nothing used are named in one log line, if *log_missing*; so are, always, changes that lack a part or are not understood,
    which are left out.
    """
    patches: dict[Any, Any] = {}
    used: set[str] = set()
    damaged: dict[str, str] = {}
    for name, target in to_load.items():
        try:
            alpha = _number(_take(lora, f"{name}.alpha", used))
            dora_scale = _take(lora, f"{name}.dora_scale", used)
            for adapter_class in adapters:
                adapter = adapter_class.load(name, lora, alpha, dora_scale, used)
                if adapter is not None:
                    patches[target] = adapter
        except KeyError as error:
            damaged[name] = f"{error.args[0] if error.args else name} is missing"
        except CHANGE_ERRORS as error:
            damaged[name] = str(error)
        patches.update(_plain_changes(lora, name, target, used))
    where = getattr(lora, "path", "the LoRA")
    log_left_out(where, damaged)
    accounted = used.union(*(_keys_of(lora, name) for name in damaged))
    unused = [key for key in lora if key not in accounted]
    if unused and log_missing:
        examples = ", ".join(map(str, unused[:3]))
        log.warning("%d of %d LoRA keys belong to no weight of the model, such as %s (%s)", len(unused), len(lora), examples, where)
    return patches


def log_left_out(where: str, problems: Mapping[str, str]) -> None:
    """One line about the changes of the file *where* that are left out, by name with the reason; nothing without any."""
    if problems:
        name, reason = next(iter(problems.items()))
        log.error("%s: %d of its changes cannot be applied and are left out, such as %s: %s", where, len(problems), name, reason)


def misfit(patch: Any, shape: tuple[int, ...]) -> str:
    """Why *patch* cannot change a weight of *shape*, in words; "" if it can or is of a kind that is checked when it is applied."""
    values = patch.weights if isinstance(patch, WeightAdapterBase) else patch[1] if isinstance(patch, tuple) and len(patch) == 2 else ()
    if isinstance(values, tuple | list) and any(isinstance(value, Tensor) and value.is_complex() for value in values):
        return "its values are complex numbers"
    if isinstance(patch, WeightAdapterBase):
        return patch.misfit(shape)
    if isinstance(patch, tuple) and len(patch) == 2 and patch[0] in ("diff", "set", "model_as_lora") and not _pads(patch[1]):
        found = tuple(patch[1][0].shape)
        if found != shape and (patch[0] != "set" or not _broadcasts(found, shape)):
            return f"a change of shape {list(found)} does not fit the weight's {list(shape)}"
    return ""


def _broadcasts(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(found) <= len(shape) and all(own in (1, side) for own, side in zip(reversed(found), reversed(shape)))


def _keys_of(lora: Mapping[str, Tensor], name: str) -> list[str]:
    return [key for key in lora if key.startswith((f"{name}.", f"{name}_lora."))]


def _number(tensor: Tensor | None) -> float | None:
    """The one real number in *tensor*; None without a tensor. Raises ``ValueError`` for others."""
    if tensor is None:
        return None
    if tensor.numel() != 1 or tensor.is_complex():
        raise ValueError(f"alpha is no number but has shape {list(tensor.shape)} of {tensor.dtype}")
    return tensor.item()


def _take(lora: Mapping[str, Tensor], key: str, used: set[str]) -> Tensor | None:
    tensor = lora.get(key)
    if tensor is not None:
        used.add(key)
    return tensor


def _plain_changes(lora: Mapping[str, Tensor], name: str, target: Any, used: set[str]) -> dict[Any, Any]:
    """Changes that are written in full: of norms, weights and biases."""
    bias = f"{target.removesuffix('.weight')}.bias" if isinstance(target, str) else target
    changes: dict[Any, Any] = {}
    for suffix, kind, where in (
        ("w_norm", "diff", target),
        ("b_norm", "diff", bias),
        ("diff", "diff", target),
        ("diff_b", "diff", bias),
        ("set_weight", "set", target),
    ):
        tensor = _take(lora, f"{name}.{suffix}", used)
        if tensor is not None:
            changes[where] = (kind, (tensor,))
    return changes


def calculate_shape(patches: Sequence[Any], weight: Tensor, key: str, original_weights: Any = None) -> tuple[int, ...]:
    """The shape of *weight* with *patches*: some make it larger."""
    shape = tuple(weight.shape)
    for _, patch, _, part, _ in patches:
        if part is not None or isinstance(patch, list):
            continue
        if isinstance(patch, WeightAdapterBase):
            shape = patch.calculate_shape(key) or shape
        elif len(patch) == 2 and patch[0] == "diff" and _pads(patch[1]):
            shape = tuple(patch[1][0].shape)
    return shape


def calculate_weight(
    patches: Sequence[Any],
    weight: Tensor,
    key: str,
    intermediate_dtype: torch.dtype = torch.float32,
    original_weights: Mapping[str, Any] | None = None,
) -> Tensor:
    """*weight* with *patches* applied in order. *weight* is changed in place; the result is it, or a larger tensor.

    A patch is (strength, what, strength of the weight, slice (dim, start, length) or None, function on the change or None), where
    *what* is an adapter, (kind, values), (tensor,), (None,) with strength 0, or the list that ``get_key_patches`` returns.
    *original_weights* is the result of ``get_key_patches``, for patches that need the model's own weights.
    """
    for strength, patch, strength_model, part, function in patches:
        target = weight if part is None else weight.narrow(*part)
        if strength_model != 1.0:
            target *= strength_model
        change = function or unchanged
        if isinstance(patch, WeightAdapterBase):
            try:
                changed = patch.calculate_weight(target, key, strength, strength_model, part, change, intermediate_dtype, original_weights)
            except CHANGE_ERRORS as error:  # of a patch that was added without load_lora_for_models, which looks at shapes first
                if comfy.model_management.is_oom(error):
                    raise
                log.error("%s %s: %s; this change is left out", patch.name, key, error)
                changed = target
        else:
            kind, values = _read_patch(patch, target, key, intermediate_dtype)
            changed = _apply_plain(kind, values, target, key, strength, change, intermediate_dtype, original_weights)
        if part is None:
            weight = changed
    return weight


def _read_patch(patch: Any, weight: Tensor, key: str, dtype: torch.dtype) -> tuple[str, Any]:
    if isinstance(patch, list):
        (own, convert), *inner = patch
        start = convert(comfy.model_management.cast_to_device(own, weight.device, dtype, copy=True), inplace=True)
        return "diff", (calculate_weight(inner, start, key, intermediate_dtype=dtype),)
    return ("diff", patch) if len(patch) == 1 else (patch[0], patch[1])


def _pads(values: Sequence[Any]) -> bool:
    return len(values) > 1 and bool(values[1]["pad_weight"])


def _apply_plain(
    kind: str,
    values: Sequence[Any],
    weight: Tensor,
    key: str,
    strength: float,
    function: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    original_weights: Mapping[str, Any] | None,
) -> Tensor:
    cast = comfy.model_management.cast_to_device
    if kind == "diff":
        change = values[0]
        if _pads(values) and change.shape != weight.shape:
            weight = pad_tensor_to_shape(weight, change.shape)
        if strength == 0.0:  # then it may also be None: the patch only multiplies the weight
            return weight
        if change.shape != weight.shape:
            log.warning("%s: a change of shape %s does not fit the weight's %s; left out", key, tuple(change.shape), tuple(weight.shape))
        else:
            weight += function(strength * cast(change, weight.device, weight.dtype))
    elif kind == "set":
        if _broadcasts(tuple(values[0].shape), tuple(weight.shape)):
            weight.copy_(values[0])
        else:
            log.warning("%s: a value of shape %s does not fit the weight's %s; left out", key, tuple(values[0].shape), tuple(weight.shape))
    elif kind == "model_as_lora":
        if original_weights is None:
            raise ValueError(f"{key}: a patch from another model's weights needs the model's own; pass get_key_patches()")
        change = cast(_change_from(values[0], original_weights[key][0][0], weight, dtype), weight.device, weight.dtype)
        weight += function(change.mul_(strength))
    else:
        log.warning("%s: unknown kind of patch %r; left out", key, kind)
    return weight


def _change_from(other: Tensor, own: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """*other* minus *own*, new, where *weight* is. Only a part of *own* is there at a time: memory may just do for patching."""
    cast = comfy.model_management.cast_to_device
    change = cast(other, weight.device, dtype, copy=True)
    if change.shape != own.shape or not own.ndim:
        return change - cast(own, weight.device, dtype)
    rows = max(1, len(own) // SUBTRACTED_PARTS)
    for part, own_part in zip(change.split(rows), own.split(rows)):
        part -= cast(own_part, weight.device, dtype)
    return change
