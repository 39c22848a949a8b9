"""Which files of weights a prompt will read, told from its text alone."""

from collections.abc import Iterable, Mapping
from typing import Any

Place = tuple[str, str]

# Inputs of loaders whose files lie in one kind of folder; texts of other inputs are looked up in all kinds.
FOLDER_OF_INPUT = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "model_name": None,
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "clip_name3": "text_encoders",
    "clip_name4": "text_encoders",
    "lora_name": "loras",
    "vae_name": "vae",
    "control_net_name": "controlnet",
    "style_model_name": "style_models",
    "gligen_name": "gligen",
    "hypernetwork_name": "hypernetworks",
}


class Catalogue:
    """The places of all files of weights in a fleet, by name."""

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self._by_name: dict[str, set[Place]] = {}
        for place in places:
            self.add(place)

    def add(self, place: Place) -> None:
        """Make (folder, name) known."""
        self._by_name.setdefault(place[1], set()).add(place)

    def needs(self, prompt: Mapping[str, Any]) -> tuple[Place, ...]:
        """The places that *prompt*, nodes by id in API format, names; each once, in order. Malformed nodes are passed over."""
        found: dict[Place, None] = {}
        for node in prompt.values():
            inputs = node.get("inputs") if isinstance(node, dict) else None
            for name, value in inputs.items() if isinstance(inputs, dict) else ():
                if isinstance(value, str):
                    found.update(dict.fromkeys(self._behind(name, value)))
        return tuple(found)

    def _behind(self, input_name: str, text: str) -> list[Place]:
        places = self._by_name.get(text.replace("\\", "/"), set())
        folder = FOLDER_OF_INPUT.get(input_name)
        return sorted(place for place in places if folder is None or place[0] == folder)


def kind_of(prompt: Mapping[str, Any], needs: Iterable[Place]) -> str:
    """A text that prompts share which should take about as long: the classes of their nodes, and the models."""
    classes = sorted(str(node.get("class_type")) for node in prompt.values() if isinstance(node, dict))
    return "|".join((*classes, *(f"{folder}/{name}" for folder, name in needs)))
