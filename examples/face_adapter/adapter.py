"""The adapter: a resampler, and keys and values of its tokens for each cross-attention of the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import comfy.model_management
from comfy.loading.add_ons import AddOn, load_add_on
from comfy_api.latest import ComfyAPISync

from .resampler import Resampler

RESAMPLER, ATTENTION = "image_proj.", "ip_adapter."
KeysValues = tuple[tuple[Tensor, Tensor], ...]


class FaceAdapter(nn.Module):
    """``resampler``, and per cross-attention, in the order of the file's odd numbers, the layers ``to_k_ip`` and ``to_v_ip``."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """*tensors* by the file's names. Raises ``KeyError``, ``RuntimeError`` or ``ValueError`` when they do not belong together."""
        super().__init__()
        self.resampler = Resampler({name.removeprefix(RESAMPLER): tensor for name, tensor in tensors.items() if name.startswith(RESAMPLER)})
        numbers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith(ATTENTION)})
        if not numbers:
            raise ValueError(f"no tensor is named {ATTENTION}…")
        self.attention = nn.ModuleList(
            nn.ModuleDict({part: _linear(tensors[f"{ATTENTION}{number}.{part}.weight"]) for part in ("to_k_ip", "to_v_ip")})
            for number in numbers
        )

    def keys_and_values(self, tokens: Tensor) -> KeysValues:
        """(keys, values) of *tokens* (B x tokens x context width) per cross-attention, each B x tokens x width of the block."""
        return tuple((layers["to_k_ip"](tokens), layers["to_v_ip"](tokens)) for layers in self.attention)


def _linear(weight: Tensor) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.load_state_dict({"weight": weight}, assign=True)
    return layer


@dataclass(frozen=True, slots=True, eq=False)
class LoadedAdapter:
    """An adapter from the RAM model cache."""

    add_on: AddOn

    @classmethod
    def load(cls, path: str) -> "LoadedAdapter":
        """The adapter of a file. Raises ``ModelFileError``, naming the file."""
        return cls(load_add_on(path, "face_adapter", FaceAdapter))

    @property
    def network(self) -> FaceAdapter:
        return self.add_on.patcher.model

    def tokens(self, embedding: Tensor) -> Tensor:
        """The tokens of a face and of no face: 2 x tokens x context width, on the host. *embedding*: face channels."""

        def compute(network: FaceAdapter, device: torch.device) -> Tensor:
            both = torch.stack([embedding, torch.zeros_like(embedding)]).unsqueeze(1)
            return network.resampler(both.to(device, network.resampler.latents.dtype)).cpu()

        return self._remembered(compute)

    def keys_and_values(self, tokens: Tensor) -> KeysValues:
        """Keys and values of *tokens* for every cross-attention, on the host: constant, so no step computes them."""

        def compute(network: FaceAdapter, device: torch.device) -> KeysValues:
            made = network.keys_and_values(tokens.to(device))
            return tuple((keys.cpu(), values.cpu()) for keys, values in made)

        return self._remembered(compute)

    def _remembered(self, compute: Callable[[FaceAdapter, torch.device], Any]) -> Any:
        """What *compute* makes with the network on the device, or made before with the same weights and captured tensors."""
        return ComfyAPISync().patching.remembered(self.add_on.key or self.add_on, _OnDevice(self, compute))


class _OnDevice:
    """Calls a function with the adapter on the device. The adapter is named among the parameters beside it."""

    def __init__(self, adapter: LoadedAdapter, compute: Callable[[FaceAdapter, torch.device], Any]) -> None:
        self._adapter, self._compute = adapter, compute

    def patch_identity_key(self) -> Any:
        return self._compute

    def __call__(self) -> Any:
        patcher = self._adapter.add_on.patcher
        comfy.model_management.load_models_gpu([patcher])
        return self._compute(self._adapter.network, patcher.load_device)
