"""LoRA files, read once per content: the tensors stay in the RAM model cache like any other part of a file."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.ram_model_cache.weights_key import WeightsKey, weights_key
from comfy.weight_files.state_dicts import FileTensors

log = logging.getLogger(__name__)
PART = "lora"
MAX_ANSWERS = 8


class LoraTensors(FileTensors):
    """The tensors of a LoRA file by name, its *metadata*, and the *key* of its contents, if it has one. Shared: not to be changed in place.

    *handle* tells the cache that they are in use.
    """

    def __init__(self, module: LoraModule, key: WeightsKey | None, handle: Any) -> None:
        super().__init__(module.tensors, module.tensors.path)
        self.metadata, self.key, self.handle = module.metadata, key, handle
        self._module = module

    def remember(self, question: Hashable, find: Callable[[], Any]) -> Any:
        """What *find* made of the tensors, or what it made before for the same *question*, unless a tensor was changed since.

        Of the file, kept in memory as long as its tensors; the last ``MAX_ANSWERS`` questions.
        """
        answers = self._module.answers
        if self._module.is_changed():
            answers.clear()
            return find()
        if question not in answers:
            answers[question] = find()
        answers.move_to_end(question)
        while len(answers) > MAX_ANSWERS:
            answers.popitem(last=False)
        return answers[question]


class LoraModule(torch.nn.Module):
    """Tensors as a module that the cache can measure. ``is_changed`` tells whether somebody wrote into one.

    *answers* is what was found out about the tensors.
    """

    def __init__(self, tensors: FileTensors, metadata: Any) -> None:
        super().__init__()
        self.tensors, self.metadata = tensors, metadata
        self.answers: OrderedDict[Hashable, Any] = OrderedDict()
        held = [value for value in tensors.values() if isinstance(value, Tensor)]
        for index, tensor in enumerate(held):
            self.register_buffer(f"tensor{index}", tensor, persistent=False)
        self._versions = [(tensor, tensor._version) for tensor in held]

    def is_changed(self) -> bool:
        """Whether a tensor is not what was read."""
        return any(tensor._version != version for tensor, version in self._versions)


class _LoraPart(Part[Any]):
    is_stored = False

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def load(self) -> Any:
        with torch.inference_mode(False):  # tensors made in inference mode do not tell of changes
            module = LoraModule(*comfy.utils.load_torch_file(self._path, safe_load=True, return_metadata=True))
        host = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(module, host, host)

    def estimate_bytes(self) -> int:
        return os.path.getsize(self._path)


def load_lora_file(path: str, before: LoraTensors | None = None) -> LoraTensors:
    """The LoRA file *path*, from the RAM model cache; where that is off, *before* if it is the same file in the same state.

    Blocks; raises what :func:`comfy.utils.load_torch_file` does.
    """
    try:
        key = weights_key(PART, [path])
    except OSError:  # the loader's own error says more
        key = None
    is_cached = comfy.model_management.ram_cache().enabled
    if not is_cached and before is not None and before.key is not None and before.key == key and not before.handle.model.is_changed():
        return before
    with ModelFiles(path) as files:
        handle = load_parts(files, {PART: _LoraPart(path)})[PART]
    if handle.model.is_changed():
        comfy.model_management.ram_cache().note_bypass(f"{PART} of {path}", "a node pack has written into its tensors in place")
        handle = _LoraPart(path).load()
    return LoraTensors(handle.model, key, handle)
