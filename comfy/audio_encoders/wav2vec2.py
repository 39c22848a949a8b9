"""wav2vec 2.0, built from transformers' layers under their names, which are the published ones.

Shapes: B sounds, T samples, N tokens (50 to a second), C width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import comfy.ops
from comfy.audio.normed import NormedConvolution
from comfy.families.sd_unet_config import count_blocks

Shape = tuple[int, ...]

MARK = "encoder.layer_norm.bias"
HEAD = 64
STRIDES = (5, 2, 2, 2, 2, 2, 2)
GROUPS = 16
LEAST_VARIANCE = 1e-7


@dataclass(frozen=True, slots=True)
class Wav2Vec2Sizes:
    """Sizes of one such network. ``stable``: norms stand before layers (the large ones), and sounds are brought to one loudness."""

    width: int
    inner: int
    layers: int
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    bias: bool
    stable: bool
    reach: int  # tokens that a token's place is told by

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Wav2Vec2Config``."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.width // HEAD,
            "conv_dim": self.channels,
            "conv_kernel": self.kernels,
            "conv_stride": STRIDES[: len(self.channels)],
            "conv_bias": self.bias,
            "feat_extract_norm": "layer" if self.stable else "group",
            "do_stable_layer_norm": self.stable,
            "num_conv_pos_embeddings": self.reach,
            "num_conv_pos_embedding_groups": GROUPS,
        }


def read_wav2vec2_sizes(shapes: Mapping[str, Shape]) -> Wav2Vec2Sizes | None:
    """The sizes that *shapes* (no prefix) show, or None where they show none. Raises ``KeyError`` for missing tensors."""
    if MARK not in shapes:
        return None
    convolutions = [
        shapes[f"feature_extractor.conv_layers.{number}.conv.weight"]
        for number in range(count_blocks(shapes, "feature_extractor.conv_layers.{}."))
    ]
    return Wav2Vec2Sizes(
        width=shapes[MARK][0],
        inner=shapes["encoder.layers.0.feed_forward.intermediate_dense.weight"][0],
        layers=count_blocks(shapes, "encoder.layers.{}."),
        channels=tuple(rows for rows, _, _ in convolutions),
        kernels=tuple(kernel for _, _, kernel in convolutions),
        bias="feature_extractor.conv_layers.0.conv.bias" in shapes,
        stable="feature_extractor.conv_layers.1.layer_norm.weight" in shapes,
        reach=next(shape[-1] for name, shape in shapes.items() if name.startswith("encoder.pos_conv_embed.conv.") and len(shape) == 3),
    )


class Wav2Vec2Model(torch.nn.Module):
    """Sound at 16 kHz to states. Parameters are on the meta device until weights are assigned."""

    def __init__(self, sizes: Wav2Vec2Sizes, operations: type[comfy.ops.disable_weight_init]) -> None:
        from transformers import Wav2Vec2Config
        from transformers import Wav2Vec2Model as Theirs

        super().__init__()
        self.sizes = sizes
        arguments: dict[str, Any] = {**sizes.transformers_arguments(), "attn_implementation": "sdpa"}
        config = Wav2Vec2Config(**arguments)
        with torch.device("meta"):
            built: Any = Theirs(config)
            reach = NormedConvolution(sizes.width, sizes.width, sizes.reach, padding=sizes.reach // 2, groups=GROUPS)
        reach.part(dim=2)
        self.feature_extractor: Any = built.feature_extractor
        self.feature_projection: Any = built.feature_projection
        self.encoder: Any = built.encoder
        self.encoder.pos_conv_embed.conv = reach
        comfy.ops.adopt_layers(self, operations)
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """*x* B x channels x T: (states B x N x C, those before each layer and after the last)."""
        x = x.mean(dim=1)
        if self.sizes.stable:
            x = (x - x.mean()) / torch.sqrt(x.var() + LEAST_VARIANCE)
        tokens, _ = self.feature_projection(self.feature_extractor(x).transpose(1, 2))
        tokens = tokens + self.encoder.pos_conv_embed(tokens)
        tokens = tokens if self.sizes.stable else self.encoder.layer_norm(tokens)
        states = []
        for layer in self.encoder.layers:
            states.append(tokens)
            tokens = layer(tokens)
        tokens = self.encoder.layer_norm(tokens) if self.sizes.stable else tokens
        return tokens, (*states, tokens)
