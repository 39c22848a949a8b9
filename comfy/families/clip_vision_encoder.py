"""CLIP's image encoder, built from transformers' layers under ComfyUI's weight names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPVisionConfig as TransformersConfig
from transformers import CLIPVisionModelWithProjection

import comfy.ops
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import PrefixedSource, WeightSource

Shape = tuple[int, ...]
HEAD_WIDTH = 64
HEADS_OF_OPEN_CLIP = 16  # of the widths above CLIP-L's, whose heads are wider
WIDTH_OF_CLIP_L = 1024
OPEN_CLIP_MARK = "transformer.resblocks.0.ln_1.weight"
OTHER_ENCODERS = {"encoder.layer.0.layer_scale1.lambda1": "DINOv2", "layer.0.attention.o_proj.bias": "DINOv3"}
_OUTSIDE_LAYERS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_LAYER_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


@dataclass(frozen=True, slots=True)
class ClipVisionConfig:
    """Sizes of one image encoder; ``projection`` is the width of the embedding, or 0 without a projection. ``projector``: the width of the
    language model that LLaVA's encoder speaks to, or 0.
    """

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    hidden_act: str
    projection: int
    projector: int = 0

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``CLIPVisionConfig``."""
        return {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "hidden_act": self.hidden_act,
            "projection_dim": self.projection or self.hidden_size,
            "attn_implementation": "sdpa",
        }


class LlavaProjector(torch.nn.Module):
    """What LLaVA makes of the states of a picture's patches for its language model."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = torch.nn.Linear(in_dim, out_dim), torch.nn.Linear(out_dim, out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """*x*: B x (1 + patches) x width, of which the first state is left out."""
        return self.linear_2(torch.nn.functional.gelu(self.linear_1(x[:, 1:])))


class ClipVisionTransformer(torch.nn.Module):
    """Pictures to hidden states and an embedding. Parameters are on the meta device until :func:`load_clip_vision`.

    Outside the layers, which are transformers', weights are used through the layers of *operations*.
    """

    vision_model: Any
    visual_projection: Any

    def __init__(self, config: ClipVisionConfig, operations: type[comfy.ops.disable_weight_init]) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            built = CLIPVisionModelWithProjection(TransformersConfig(**config.transformers_arguments())).eval().requires_grad_(False)
            speaks = LlavaProjector(config.hidden_size, config.projector).requires_grad_(False) if config.projector else None
        self.vision_model = torch.nn.Module()
        for name in ("embeddings", "pre_layrnorm", "encoder", "post_layernorm"):
            setattr(self.vision_model, name, getattr(built.vision_model, name))
        del self.vision_model.embeddings.position_ids
        self.visual_projection = built.visual_projection if config.projection else torch.nn.Identity()
        self.multi_modal_projector = speaks
        comfy.ops.adopt_layers(self, operations)

    def forward(
        self, pixel_values: torch.Tensor, attention_mask: None = None, intermediate_output: int | str | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None]:
        """(last hidden state, that of layer *intermediate_output* or None, embedding, what LLaVA's language model is given of the layer's).

        *pixel_values*: B x 3 x size x size, normalised. Negative layer numbers count from the end; "all" stacks all along dimension 1.
        """
        x = self.vision_model.pre_layrnorm(self._embedded(pixel_values))
        number = intermediate_output % self.config.num_layers if isinstance(intermediate_output, int) else None
        taken = []
        for index, layer in enumerate(self.vision_model.encoder.layers):
            x = layer(x, None)
            if intermediate_output == "all" or index == number:
                taken.append(x)
        chosen = torch.stack(taken, dim=1) if intermediate_output == "all" else taken[0] if taken else None
        said = None if self.multi_modal_projector is None or number is None else self.multi_modal_projector(taken[0])
        return x, chosen, self.visual_projection(self.vision_model.post_layernorm(x[:, 0])), said

    def _embedded(self, pixel_values: torch.Tensor) -> torch.Tensor:
        embeddings = self.vision_model.embeddings
        patches = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        start = embeddings.class_embedding.to(patches).expand(len(patches), 1, -1)
        positions = torch.arange(patches.shape[1] + 1, device=patches.device)
        return torch.cat([start, patches], dim=1) + embeddings.position_embedding(positions).to(patches)


def clip_vision_part(source: WeightSource) -> tuple[WeightSource, ClipVisionConfig] | None:
    """The image encoder in *source*, without what stands before its names, and its sizes; None if there is none.

    Raises ``UnknownModelError`` for encoders of other kinds, which are told by their names.
    """
    for prefix in ("", "visual.", "image_encoder.", "vision_encoder."):
        part = PrefixedSource(source, prefix)
        shapes = part.shapes()
        other = next((kind for mark, kind in OTHER_ENCODERS.items() if mark in shapes), None)
        if other is not None:
            raise UnknownModelError(f"{source.name} is an image encoder of the kind {other}; supported: CLIP's")
        with naming_file(source.name, "the image encoder"):
            config = read_clip_vision_config(shapes)
        if config is not None:
            return part, config
    return None


def read_clip_vision_config(shapes: Mapping[str, Shape]) -> ClipVisionConfig | None:
    """The image encoder that *shapes* describe in transformers' or open_clip's names (no prefix), or None."""
    layers, fc, projection = "vision_model.encoder.layers.{}.", "vision_model.encoder.layers.0.mlp.fc1.weight", "visual_projection.weight"
    patches, positions = "vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.position_embedding.weight"
    is_open_clip = OPEN_CLIP_MARK in shapes
    if is_open_clip:
        layers, fc, projection = "transformer.resblocks.{}.", "transformer.resblocks.0.mlp.c_fc.weight", "proj"
        patches, positions = "conv1.weight", "positional_embedding"
    if patches not in shapes or positions not in shapes or fc not in shapes:
        return None
    width = shapes[patches][0]
    patch_size = shapes[patches][-1]
    embedding = shapes.get(projection, (0, 0))
    is_large = width > WIDTH_OF_CLIP_L
    return ClipVisionConfig(
        image_size=math.isqrt(shapes[positions][0] - 1) * patch_size,
        patch_size=patch_size,
        hidden_size=width,
        intermediate_size=shapes[fc][0],
        num_layers=count_blocks(shapes, layers),
        num_heads=HEADS_OF_OPEN_CLIP if is_large else max(1, width // HEAD_WIDTH),
        hidden_act="gelu" if is_large else "quick_gelu",
        projection=embedding[1] if is_open_clip else embedding[0],
        projector=shapes.get("multi_modal_projector.linear_1.weight", (0,))[0],
    )


def load_clip_vision(model: torch.nn.Module, source: WeightSource, dtype: torch.dtype, what: str) -> None:
    """Give *model* its weights from *source* (no prefix), floating-point ones in *dtype*. Raises ``ModelFileError``, naming *what*."""
    with naming_file(source.name, what):
        plan = plan_conversion(source.shapes(), to_transformers)
    load_parameters(model, source, plan, dtype, what)


def to_transformers(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """*tensors* (no prefix) under transformers' names, as views; those in transformers' names already are left as they are."""
    if OPEN_CLIP_MARK not in tensors:
        return dict(tensors)
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if key in _OUTSIDE_LAYERS:
            renamed[f"vision_model.{_OUTSIDE_LAYERS[key]}"] = tensor
        elif key == "proj":
            renamed["visual_projection.weight"] = tensor.transpose(0, 1)
        elif key.startswith("transformer.resblocks."):
            number, rest = key.removeprefix("transformer.resblocks.").split(".", 1)
            renamed.update(_layer_tensors(f"vision_model.encoder.layers.{number}", rest, tensor))
    return renamed


def _layer_tensors(layer: str, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    if name.startswith("attn.in_proj_"):
        leaf = name.removeprefix("attn.in_proj_")
        return {f"{layer}.self_attn.{part}_proj.{leaf}": piece for part, piece in zip("qkv", tensor.chunk(3))}
    kind, _, leaf = name.rpartition(".")
    return {f"{layer}.{_LAYER_NAMES.get(kind, kind)}.{leaf}": tensor}
