"""Networks that node packs add to a model (adapters, resamplers), as parts of the RAM model cache: built once per file and options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.families.model_errors import ModelFileError
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.ram_model_cache.weights_key import NotCacheable, WeightsKey, weights_key

Build = Callable[[dict[str, Tensor]], torch.nn.Module]


@dataclass(frozen=True, slots=True, eq=False)
class AddOn:
    """A clone of a cached patcher, and the *key* of its weights: equal keys mean equal weights. None where they cannot be named.

    ``load_models_gpu([add_on.patcher])`` brings it to the device, as for any model; keep the add-on for as long as it is used.
    """

    patcher: Any
    key: WeightsKey | None


def load_add_on(path: str, kind: str, build: Build, options: Mapping[str, Any] | None = None) -> AddOn:
    """What *build* makes of the tensors of the file *path*, from the RAM model cache if it was built for equal *options* before.

    *kind* names the part in ``GET /caches`` and receipts. *build* gets {name: tensor}, those of nested files under names joined by dots;
    it keeps the tensors as weights. Blocks; raises ``ModelFileError``, naming the file, for what *build* raises as ``KeyError``,
    ``RuntimeError`` or ``ValueError``, and what :func:`comfy.utils.load_torch_file` raises.
    """
    given = dict(options or {})
    try:
        key = weights_key(kind, [path], given)
    except (OSError, NotCacheable):  # the loader's own error or receipt says more
        key = None
    with ModelFiles(path) as files:
        patcher = load_parts(files, {kind: _AddOnPart(path, build, given)})[kind]
    return AddOn(patcher, key)


class _AddOnPart(Part):
    is_stored = False

    def __init__(self, path: str, build: Build, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._path, self._build = path, build

    def load(self) -> Any:
        management = comfy.model_management
        with torch.inference_mode(False), torch.no_grad():  # tensors made in inference mode do not tell of changes
            tensors = dict(_flat(comfy.utils.load_torch_file(self._path, safe_load=True)))
            try:
                network = self._build(tensors)
            except (KeyError, RuntimeError, ValueError) as error:
                raise ModelFileError(f"{self._path} does not hold what was expected: {error}") from error
        return comfy.model_patcher.ModelPatcher(network.eval().requires_grad_(False), management.get_torch_device(), torch.device("cpu"))

    def estimate_bytes(self) -> int:
        return os.path.getsize(self._path)


def _flat(tensors: Mapping[str, Any], prefix: str = "") -> Any:
    for name, value in tensors.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            yield f"{prefix}{name}", value
