"""Qwen3-VL as a text encoder: Qwen 3, whose first layers are also told what its eyes saw on the way, built from transformers' layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from comfy.families.diffusers_unet import RenamedSource
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import WeightSource
from comfy.text.qwen.network import PatchEmbedding, QwenTextModel
from comfy.text.qwen.pictures import picture_patches
from comfy.text.qwen.sizes import DeepEyesConfig, qwen3_vl_name

ROPE_SECTIONS = (24, 20, 20)  # how many of a head's pairs turn by frame, row and column; the latter two take turns with the first
GREY = (0.5, 0.5, 0.5)


def _axes() -> tuple[int, ...]:
    """Which axis each pair of a head turns by: frame, row, column, frame … while there are rows and columns left."""
    return tuple(pair % 3 if pair < ROPE_SECTIONS[pair % 3] * 3 and pair % 3 else 0 for pair in range(sum(ROPE_SECTIONS)))


class Qwen3VLTextModel(QwenTextModel):
    """Token embeddings to hidden states, as its base class."""

    AXES = _axes()

    def preprocess_embed(self, embed: Mapping[str, Any], device: torch.device) -> tuple[torch.Tensor | None, Any]:
        """(vectors tokens x width, {"grid", "deepstack"}) of {"type": "image", "data": B x height x width x 3 (0…1)}, of which the first
        picture counts. "deepstack": what the first layers are told, tokens x width each.

        Raises ``ValueError`` for other kinds.
        """
        eyes = self.config.eyes
        if embed.get("type") != "image" or eyes is None:
            raise ValueError(f"there is {embed.get('type')!r} among the tokens, but this text encoder takes pictures only")
        images = embed["data"][..., :3].to(device, torch.float32)
        patches, grid = picture_patches(images, eyes.patch_size, eyes.frames, GREY, GREY)
        seen = self.visual(patches, grid_thw=grid)
        return seen.pooler_output, {"grid": grid, "deepstack": list(seen.deepstack_features)}

    @staticmethod
    def _make_eyes(config: Any) -> Any:
        return deep_eyes(config)

    @staticmethod
    def _grid(info: Mapping[str, Any]) -> Any:
        return info["extra"]["grid"]

    def _seen(self, number: int, x: torch.Tensor, embeds_info: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        for info in embeds_info:
            if info.get("type") == "image" and number < len(info["extra"]["deepstack"]):
                start, size = int(info["index"]), int(info["size"])
                told = info["extra"]["deepstack"][number].to(x)
                x = torch.cat((x[:, :start], x[:, start : start + size] + told, x[:, start + size :]), dim=1)
        return x

    def load_weights(self, source: WeightSource, dtype: torch.dtype, what: str) -> set[str]:
        """As the base class, from transformers' names as well."""
        part = plain_weights(source)
        names = {qwen3_vl_name(key): key for key in part.shapes()}
        renamed = RenamedSource(part, names, {name: part.shapes()[key] for name, key in names.items()})
        return {names[name] for name in super().load_weights(renamed, dtype, what)}


def deep_eyes(config: DeepEyesConfig) -> Any:
    """transformers' network for pictures, on the meta device."""
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

    arguments = Qwen3VLVisionConfig(**{**config.transformers_arguments(), "attn_implementation": "sdpa"})
    with torch.device("meta"):
        built: Any = Qwen3VLVisionModel(arguments).eval().requires_grad_(False)
    built.rotary_pos_emb = type(built.rotary_pos_emb)(arguments)  # its frequencies are in no file
    built.patch_embed.__class__ = PatchEmbedding
    return built
