"""PhotoMaker: what CLIP-L's image encoder sees of a person, in the place of a word among SDXL's text states.

Z. Li et al., "PhotoMaker: Customizing Realistic Human Photos via Stacked ID Embedding" (2023).
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.families.clip_vision_encoder import ClipVisionTransformer, read_clip_vision_config
from comfy.loading.add_ons import load_add_on

PREFIX = "id_encoder."  # of the tensors in a published file


class _Mlp(torch.nn.Module):
    """A norm, a linear layer, GELU, a linear layer; with *residual* its input is added."""

    def __init__(self, inner: int, outer: int, residual: bool) -> None:
        super().__init__()
        ops = comfy.ops.manual_cast
        self.layernorm, self.fc1, self.fc2 = ops.LayerNorm(inner), ops.Linear(inner, outer), ops.Linear(outer, outer)
        self.is_residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, inner) to (…, outer)."""
        made = self.fc2(F.gelu(self.fc1(self.layernorm(x))))
        return made + x if self.is_residual else made


class _Fuse(torch.nn.Module):
    """A word's state and a person's embedding to the state that stands for both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp1, self.mlp2 = _Mlp(2 * width, width, residual=False), _Mlp(width, width, residual=True)
        self.layer_norm = comfy.ops.manual_cast.LayerNorm(width)

    def forward(self, words: torch.Tensor, people: torch.Tensor) -> torch.Tensor:
        """Both are words x width."""
        return self.layer_norm(self.mlp2(self.mlp1(torch.cat([words, people], dim=-1)) + words))


class PhotoMakerIDEncoder(ClipVisionTransformer):
    """CLIP's image encoder with a second projection, and what fuses both with a word's state."""

    def __init__(self, config: Any, second: int) -> None:
        super().__init__(config, comfy.ops.manual_cast)
        self.visual_projection_2 = comfy.ops.manual_cast.Linear(config.hidden_size, second, bias=False)
        self.fuse_module = _Fuse(config.projection + second)

    def forward(self, id_pixel_values: torch.Tensor, prompt_embeds: torch.Tensor, class_tokens_mask: torch.Tensor) -> Any:  # type: ignore[override]
        """*prompt_embeds* (1 x tokens x width) with the people of *id_pixel_values* (1 x pictures x 3 x size x size, normalised) where
        *class_tokens_mask* (1 x tokens) is true: in order, as many pictures as there are such tokens.

        Raises ``ValueError`` for text states of another width than this model's, or for fewer pictures than places.
        """
        width, places = self.fuse_module.layer_norm.normalized_shape[0], int(class_tokens_mask.sum())
        if prompt_embeds.shape[-1] != width:
            raise ValueError(f"PhotoMaker takes texts encoded to {width} values, as SDXL's, not {prompt_embeds.shape[-1]}")
        if id_pixel_values.shape[1] < places:
            raise ValueError(f"there are {places} places for people in the text, but {id_pixel_values.shape[1]} pictures")
        x = self.vision_model.pre_layrnorm(self._embedded(id_pixel_values[0]))
        for layer in self.vision_model.encoder.layers:
            x = layer(x, None)
        seen = self.vision_model.post_layernorm(x[:, 0])
        people = torch.cat([self.visual_projection(seen), self.visual_projection_2(seen)], dim=-1)[:places]
        states = prompt_embeds.clone()
        states[class_tokens_mask] = self.fuse_module(states[class_tokens_mask], people.to(states.dtype)).to(states.dtype)
        return states


def build_photomaker(tensors: Mapping[str, torch.Tensor]) -> PhotoMakerIDEncoder:
    """The model on *tensors*, those of a file. Raises ``ValueError`` where they are none, and ``RuntimeError`` where some are missing."""
    own = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)} or dict(tensors)
    config = read_clip_vision_config({name: tuple(value.shape) for name, value in own.items()})
    if config is None or "visual_projection_2.weight" not in own:
        raise ValueError("it is no PhotoMaker model of the first version; use photomaker-v1.bin")
    with torch.device("meta"):
        made = PhotoMakerIDEncoder(config, own["visual_projection_2.weight"].shape[0])
    known = made.state_dict()
    made.load_state_dict({name: value for name, value in own.items() if name in known}, strict=True, assign=True)
    return made


def load_photomaker(path: str) -> Any:
    """A patcher of the model in a file, from the RAM model cache. Raises ``ModelFileError``, naming the file."""
    return load_add_on(path, "photomaker", build_photomaker).patcher
