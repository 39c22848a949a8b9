"""What is known of one family of diffusion transformers, apart from its network.

Shapes of files are {name: shape} in the published names, without a prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy.supported_models_base import BASE

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Config = dict[str, Any]  # ComfyUI's unet_config
Target = str | tuple[Any, ...]  # a weight, or (weight, slice (dim, start, length) or None[, function on a change])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor in diffusers' names belongs: in the weight *key* from row *start* on, *length* rows; the whole if *length* is 0.

    *swapped*: the two halves of its rows stand the other way round there. *flat*: its rows are one behind the other there. *channels*: its
    numbers are those of the channels there, 1 x C x 1 x 1.
    """

    key: str
    start: int = 0
    length: int = 0
    swapped: bool = False
    flat: bool = False
    channels: bool = False


@dataclass(frozen=True, slots=True)
class DiffusersNames:
    """The family's files in diffusers' names.

    *marks* are names that all of them have and no file of another family has all of. *sizes* reads what *places* needs off the shapes
    (names as there): members of the ``unet_config``. *places* tells where each tensor belongs; it may name more than a file has.
    """

    marks: Collection[str]
    sizes: Callable[[Shapes], Config]
    places: Callable[[Config], Mapping[str, Place]]


def network_kind(unet_config: Mapping[str, Any]) -> str | None:
    """Which kind of network *unet_config* is of: its ``image_model``, for sound its ``audio_model``; None where it says neither."""
    return unet_config.get("image_model") or unet_config.get("audio_model")


def _no_names(config: Config, keys: Iterable[str]) -> Mapping[str, Target]:
    return {}


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    *configs*: its configurations, the most specific first, each with ``image_model`` (or ``audio_model``) in its ``unet_config``.
    *read_config* makes the ``unet_config`` of the shapes of a file, or None where it is none of this family. *lora_names* gives what LoRA
    files call weights, besides the names that every model's weights have, from the ``unet_config`` and the weights' names
    (``diffusion_model.…``).
    *with_metadata* adds to the ``unet_config`` what the metadata of the file says.
    """

    name: str
    configs: tuple[type[BASE], ...]
    read_config: Callable[[Shapes], Config | None]
    diffusers: DiffusersNames | None = None
    lora_names: Callable[[Config, Iterable[str]], Mapping[str, Target]] = _no_names
    with_metadata: Callable[[Config, Mapping[str, str]], Config] | None = None

    def __post_init__(self) -> None:
        nameless = [config.__name__ for config in self.configs if network_kind(config.unet_config) is None]
        if nameless or not self.configs:
            raise ValueError(f"{self.name}: the unet_config of {nameless or 'no configuration'} says no image_model")

    def image_models(self) -> set[str]:
        """The names of its kinds of network."""
        return {kind for config in self.configs if (kind := network_kind(config.unet_config)) is not None}
