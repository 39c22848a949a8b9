"""Which changes of a LoRA file fit the weights that they are for, told by shapes alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

import comfy.lora
from comfy.patching.model_weights import ModelWeights
from comfy.patching.patch_table import split_patch_key
from comfy.weight_adapter import WeightAdapterBase


def fitting_changes(patches: Mapping[Any, Any], modules: Iterable[torch.nn.Module], where: str) -> dict[Any, Any]:
    """*patches* without those that do not fit the weight they name, which one log line names together with the file *where*.

    The weights are those of *modules*; a change that names no weight of theirs stays in. Computes nothing with the tensors.
    """
    owners = [(set(weights.keys()), weights) for weights in map(ModelWeights, modules)]
    # A file has hundreds of changes but few different shapes, and finding out about one takes up to a millisecond.
    answers: dict[Hashable, str] = {}
    problems: dict[Any, str] = {}
    for target, patch in patches.items():
        key, part, _ = split_patch_key(target)
        shape = next((weights.shape(key) for keys, weights in owners if key in keys), None)
        if shape is None:
            continue
        if part is not None:
            shape = (*shape[: part[0]], part[2], *shape[part[0] + 1 :])
        question = type(patch), outline(patch.weights if isinstance(patch, WeightAdapterBase) else patch), shape
        if question not in answers:
            answers[question] = comfy.lora.misfit(patch, shape)
        if answers[question]:
            problems[target] = answers[question]
    comfy.lora.log_left_out(where, {str(target): reason for target, reason in problems.items()})
    return {target: patch for target, patch in patches.items() if target not in problems}


def outline(value: Any) -> Hashable:
    """*value* with shapes and dtypes in place of tensors: equal for changes that fit the same weights."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, tuple | list):
        return tuple(map(outline, value))
    return value if value is None or isinstance(value, str | int | float) else id(value)
