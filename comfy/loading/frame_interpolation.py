"""Models that make frames between others, from files, through the RAM model cache: RIFE's from version 4 on, and FILM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

import comfy.model_management
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.published_weights import load_published
from comfy.families.weight_source import WeightSource
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.model_patcher import CoreModelPatcher

WHAT = "the frame interpolation model"
FILM_MARK = "extract.extract_sublevels.convs.0.0.conv.weight"
WRAPPED = ("module.", "flownet.")  # what the names of a file may begin with, one behind the other
OF_TRAINING = ("teacher.", "caltime.")
Networks = Mapping[str, Any]


def load_frame_interpolation(path: str, networks: Networks) -> Any:
    """The patcher of the model of a file. Blocks. *networks* holds the modules ``film_net`` and ``ifnet``.

    Raises ``UnknownModelError`` for a file that holds none, ``ModelFileError`` for a damaged one.
    """
    with ModelFiles(path) as files:
        return load_parts(files, {"frame_interpolation": _InterpolationPart(files, networks)})["frame_interpolation"]


def in_network_names(key: str) -> str | None:
    """What the network calls the tensor *key* of a file; None for what only training needs."""
    for prefix in WRAPPED:
        key = key.removeprefix(prefix)
    return None if key.startswith(OF_TRAINING) else re.sub(r"^block(\d+)\.", r"blocks.\1.", key)


class _InterpolationPart(Part[Any]):
    """The model of a file."""

    def __init__(self, files: ModelFiles, networks: Networks) -> None:
        super().__init__()
        self._files, self._networks = files, networks

    def load(self) -> Any:
        management = comfy.model_management
        source = _renamed(self._files.source())
        network = self._network(source)
        load_published(network, source, _dtype(), WHAT)
        return CoreModelPatcher(network.eval(), load_device=management.get_torch_device(), offload_device=management.unet_offload_device())

    def _network(self, source: WeightSource) -> Any:
        shapes = source.shapes()
        with naming_file(source.name, WHAT), torch.device("meta"):
            if FILM_MARK in shapes:
                film = self._networks["film_net"]
                return film.FILMNet(**film.detect_film_sizes(shapes))
            rife = self._networks["ifnet"]
            try:
                head, channels = rife.detect_rife_config({name: torch.empty(shape) for name, shape in shapes.items()})
            except (KeyError, ValueError) as error:
                raise UnknownModelError(f"it holds none that is supported ({error}); supported: RIFE 4 and FILM") from error
            return rife.IFNet(head, channels)

    def estimate_bytes(self) -> int:
        return kept_bytes(self._files.source(), "", _dtype())


def _dtype() -> torch.dtype:
    management = comfy.model_management
    return torch.float16 if management.should_use_fp16(management.get_torch_device()) else torch.float32


def _renamed(source: WeightSource) -> WeightSource:
    """*source* in the network's names."""
    shapes = source.shapes()
    names = {own: key for key in shapes if (own := in_network_names(key)) is not None}
    return RenamedSource(source, names, {own: shapes[key] for own, key in names.items()})
