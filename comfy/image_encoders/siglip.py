"""SigLIP's image encoder, built from transformers' layers: patches without a class token, and a norm over all of them.

X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (2023). Files name their weights as transformers does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import SiglipVisionConfig as TransformersConfig
from transformers import SiglipVisionModel

import comfy.ops
from comfy.families.model_errors import UnknownModelError
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]

MODEL_TYPE = "siglip_vision_model"
ACTIVATION = "gelu_pytorch_tanh"
HEAD_WIDTH = 64
HEADS = 16  # of encoders at least as wide as the next
WIDE = 1024
# By positions and patch size: published sizes that are no multiple of the patch.
ODD_SIZES = {(729, 14): 384}
_EMBEDDINGS = "vision_model.embeddings."


@dataclass(frozen=True, slots=True)
class SiglipConfig:
    """Sizes of one encoder."""

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``SiglipVisionConfig``."""
        return {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "hidden_act": ACTIVATION,
            "attn_implementation": "sdpa",
        }


class SiglipVisionTransformer(torch.nn.Module):
    """Pictures to hidden states. Parameters are on the meta device until ``load_clip_vision``; the pooling head is left out."""

    vision_model: Any

    def __init__(self, config: SiglipConfig, operations: type[comfy.ops.disable_weight_init]) -> None:
        super().__init__()
        self.config = config
        arguments = {**config.transformers_arguments(), "vision_use_head": False}
        with torch.device("meta"):
            built = SiglipVisionModel(TransformersConfig(**arguments)).eval().requires_grad_(False)
        self.vision_model = torch.nn.Module()
        for name in ("embeddings", "encoder", "post_layernorm"):
            setattr(self.vision_model, name, getattr(built, name))
        del self.vision_model.embeddings.position_ids
        comfy.ops.adopt_layers(self, operations)

    def forward(
        self, pixel_values: torch.Tensor, attention_mask: None = None, intermediate_output: int | str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, None]:
        """(last hidden state, normed; that of layer *intermediate_output*, not normed, or None; the first again, as embedding; None).

        *pixel_values*: B x 3 x size x size, normalised. Negative layer numbers count from the end; "all" stacks all along dimension 1.
        """
        embeddings = self.vision_model.embeddings
        patches = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        x = patches + embeddings.position_embedding(torch.arange(patches.shape[1], device=patches.device)).to(patches)
        number = intermediate_output % self.config.num_layers if isinstance(intermediate_output, int) else None
        taken = []
        for index, layer in enumerate(self.vision_model.encoder.layers):
            x = layer(x, None)
            if intermediate_output == "all" or index == number:
                taken.append(x)
        chosen = torch.stack(taken, dim=1) if intermediate_output == "all" else taken[0] if taken else None
        last = self.vision_model.post_layernorm(x)
        return last, chosen, last, None


def siglip_part(source: WeightSource) -> SiglipConfig | None:
    """The sizes of the SigLIP encoder in *source*, None if there is none.

    Raises ``UnknownModelError`` for SigLIP 2 with patches of any number (NaFlex).
    """
    shapes = source.shapes()
    if f"{_EMBEDDINGS}patch_embedding.bias" not in shapes or f"{_EMBEDDINGS}class_embedding" in shapes:
        return None
    if len(shapes[f"{_EMBEDDINGS}patch_embedding.weight"]) == 2:
        raise UnknownModelError(
            f"{source.name} is an image encoder of the kind SigLIP 2 NaFlex; supported: CLIP's, and SigLIP's of one size"
        )
    return read_siglip_config(shapes)


def read_siglip_config(shapes: Mapping[str, Shape]) -> SiglipConfig:
    """The sizes that *shapes* tell."""
    width, _, _, patch_size = shapes[f"{_EMBEDDINGS}patch_embedding.weight"]
    positions = shapes[f"{_EMBEDDINGS}position_embedding.weight"][0]
    return SiglipConfig(
        image_size=ODD_SIZES.get((positions, patch_size), math.isqrt(positions) * patch_size),
        patch_size=patch_size,
        hidden_size=width,
        intermediate_size=shapes["vision_model.encoder.layers.0.mlp.fc1.weight"][0],
        num_layers=count_blocks(shapes, "vision_model.encoder.layers.{}."),
        num_heads=HEADS if width >= WIDE else max(1, width // HEAD_WIDTH),
    )
