"""What this server offers: node classes, model families, formats of weights and samplers, asked of the server's own tables."""

import asyncio
import json
import pathlib
from dataclasses import dataclass

import nodes
from comfy import samplers, supported_models
from comfy.control.weights import TRANSFORMERS
from comfy.quantisation.formats import FORMATS
from comfy.text.combinations import COMBINATIONS
from comfy.text.kinds import KINDS

NAMES = pathlib.Path(__file__).with_name("comfyui_names.json")


class NodesMissingError(RuntimeError):
    """Built-in node modules could not be imported, so that nothing can be counted."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names of ComfyUI's node classes and samplers."""

    classes: frozenset[str]
    samplers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """What this server has, by ComfyUI's names."""

    classes: frozenset[str]
    families: frozenset[str]
    formats: frozenset[str]
    samplers: frozenset[str]
    text_models: frozenset[str] = frozenset()


def comfyui_names() -> Names:
    """Those of the ComfyUI release that this server is compared with."""
    read = json.loads(NAMES.read_text(encoding="utf-8"))
    return Names(frozenset(read["classes"]), tuple(read["samplers"]))


def load_nodes() -> None:
    """Register the server's own nodes. Raises :class:`NodesMissingError`."""
    if failed := asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False)):
        raise NodesMissingError(f"built-in nodes that cannot be imported: {', '.join(failed)}")


def ask_server() -> Offer:
    """What is offered now; :func:`load_nodes` comes first."""
    return Offer(
        frozenset(nodes.NODE_CLASS_MAPPINGS),
        frozenset(family.__name__ for family in supported_models.models) | {f"ControlNet of {family}" for family in TRANSFORMERS},
        frozenset(FORMATS),
        frozenset(samplers.SAMPLER_NAMES),
        frozenset(kind.model.name for kind in KINDS if any(kind.model in one.models for one in COMBINATIONS)),
    )
