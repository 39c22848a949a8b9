"""Gemma 2 as a text encoder, built from transformers' layers. Its scores are not capped, as in ComfyUI."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import comfy.ops
from comfy.families.sd_unet_config import count_blocks
from comfy.text.qwen.network import QwenTextModel

Shape = tuple[int, ...]
HEAD = 256  # of a head, which no shape tells
_FIRST = "model.layers.0."


@dataclass(frozen=True, slots=True)
class GemmaTextConfig:
    """Sizes of one language model."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    head_width: int = HEAD
    rope_theta: float = 10000.0
    eps: float = 1e-6

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Gemma2Config``."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_heads,
            "head_dim": self.head_width,
            "query_pre_attn_scalar": self.head_width,
            "attn_logit_softcapping": None,
            "rms_norm_eps": self.eps,
        }


GEMMA_2_2B = GemmaTextConfig(vocabulary=256000, hidden_size=2304, intermediate_size=9216, num_layers=26, num_heads=8, num_key_heads=4)


def read_gemma_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> GemmaTextConfig | None:
    """The model that *shapes* describe in published names (no prefix), or None if they describe none. *settings* are not asked."""
    table, wide = shapes.get("model.embed_tokens.weight"), shapes.get(f"{_FIRST}mlp.gate_proj.weight")
    queries, keys = shapes.get(f"{_FIRST}self_attn.q_proj.weight"), shapes.get(f"{_FIRST}self_attn.k_proj.weight")
    if table is None or wide is None or queries is None or keys is None or f"{_FIRST}post_feedforward_layernorm.weight" not in shapes:
        return None
    if f"{_FIRST}self_attn.q_norm.weight" in shapes:  # Gemma 3
        return None
    return GemmaTextConfig(
        vocabulary=table[0],
        hidden_size=table[1],
        intermediate_size=wide[0],
        num_layers=count_blocks(shapes, "model.layers.{}."),
        num_heads=queries[0] // HEAD,
        num_key_heads=keys[0] // HEAD,
    )


class GemmaTextModel(QwenTextModel):
    """Token embeddings, which it scales itself, to hidden states; otherwise as its base class."""

    STOPS = (1,)

    def __init__(
        self, config: GemmaTextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32
    ) -> None:
        torch.nn.Module.__init__(self)
        self.config: Any = config
        self.num_layers = config.num_layers
        self.dtype = dtype
        built = _language_model(config)
        self.model = torch.nn.Module()
        self.model.embed_tokens = torch.nn.Embedding(config.vocabulary, config.hidden_size, device="meta").requires_grad_(False)
        self.model.layers, self.model.norm = built.layers, built.norm
        self.visual = None
        comfy.ops.adopt_layers(self, operations)
        scale_embeddings(self.model.embed_tokens)


def scale_embeddings(layer: torch.nn.Module) -> None:
    """Make the token embedding *layer* give vectors as Gemma's layers take them."""
    layer.register_forward_hook(_scaled)


def _scaled(layer: torch.nn.Module, inputs: Any, vectors: torch.Tensor) -> torch.Tensor:
    """The vectors of tokens as Gemma's layers take them: multiplied by the root of their width."""
    return vectors * vectors.shape[-1] ** 0.5


def _language_model(config: GemmaTextConfig) -> Any:
    """transformers' network without its head, on the meta device."""
    from transformers import Gemma2Config, Gemma2Model

    arguments = Gemma2Config(**{**config.transformers_arguments(), "attn_implementation": "eager"})
    with torch.device("meta"):
        return Gemma2Model(arguments).eval().requires_grad_(False)
