"""Llama 3 and Mistral as text encoders, built from transformers' layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import comfy.ops
from comfy.families.sd_unet_config import count_blocks
from comfy.text.qwen.network import QwenTextModel, keep_dtypes

Shape = tuple[int, ...]
HEAD = 128  # of a head, which no shape tells
MISTRAL_WIDTH, MISTRAL_LAYERS, PRUNED_LAYERS = 5120, 40, 30
MINISTRAL_WIDTH, MINISTRAL_LAYERS = 3072, 26
_FIRST = "model.layers.0."


@dataclass(frozen=True, slots=True)
class LlamaTextConfig:
    """Sizes of one language model. ``has_end_norm``: whether its last states are normalised, which pruned files cannot be."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    head_width: int = HEAD
    rope_theta: float = 500000.0
    eps: float = 1e-5
    has_end_norm: bool = True

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``LlamaConfig``."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_heads,
            "head_dim": self.head_width,
            "rms_norm_eps": self.eps,
        }


def is_mistral(config: LlamaTextConfig) -> bool:
    """Whether *config* is Mistral Small with 24 billion parameters: told by its width, or, in models smaller than any, by its depth."""
    return config.hidden_size == MISTRAL_WIDTH or (_is_small(config) and config.num_layers in (MISTRAL_LAYERS, PRUNED_LAYERS))


def is_ministral(config: LlamaTextConfig) -> bool:
    """Whether *config* is Ministral with three billion parameters, told in the same way."""
    return config.hidden_size == MINISTRAL_WIDTH or (_is_small(config) and config.num_layers == MINISTRAL_LAYERS)


def is_llama(config: LlamaTextConfig) -> bool:
    """Whether *config* is Llama 3, as every one that is not Mistral's."""
    return not is_mistral(config) and not is_ministral(config)


def _is_small(config: LlamaTextConfig) -> bool:
    return config.hidden_size < 1024


def read_llama_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> LlamaTextConfig | None:
    """The model that *shapes* describe in published names (no prefix), or None if they describe none. *settings* are not asked."""
    table, wide = shapes.get("model.embed_tokens.weight"), shapes.get(f"{_FIRST}mlp.gate_proj.weight")
    queries, keys = shapes.get(f"{_FIRST}self_attn.q_proj.weight"), shapes.get(f"{_FIRST}self_attn.k_proj.weight")
    others = ("self_attn.q_norm.weight", "self_attn.k_proj.bias", "post_feedforward_layernorm.weight")  # Qwen 3, Qwen 2.5, Gemma
    if table is None or wide is None or queries is None or keys is None or any(f"{_FIRST}{name}" in shapes for name in others):
        return None
    sizes: dict[str, Any] = {
        "vocabulary": table[0],
        "hidden_size": table[1],
        "intermediate_size": wide[0],
        "num_layers": count_blocks(shapes, "model.layers.{}."),
        "num_heads": queries[0] // HEAD,
        "num_key_heads": keys[0] // HEAD,
    }
    config = LlamaTextConfig(**sizes)
    if is_mistral(config):
        return LlamaTextConfig(**sizes, rope_theta=1e9, has_end_norm=config.num_layers >= MISTRAL_LAYERS)
    return LlamaTextConfig(**sizes, rope_theta=1e6) if is_ministral(config) else config


class LlamaTextModel(QwenTextModel):
    """Token embeddings to hidden states, as its base class."""

    STOPS = (2,)  # of Ministral: </s>

    def __init__(
        self, config: LlamaTextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32
    ) -> None:
        torch.nn.Module.__init__(self)
        self.config: Any = config
        self.num_layers = config.num_layers
        self.dtype = dtype
        built = _language_model(config)
        self.model = torch.nn.Module()
        self.model.embed_tokens, self.model.layers = built.embed_tokens, built.layers
        self.model.norm = built.norm if config.has_end_norm else torch.nn.Identity()
        self.visual = None
        keep_dtypes(self)
        comfy.ops.adopt_layers(self, operations)

    def stop_tokens(self) -> tuple[int, ...]:
        """Ministral's end of a text. Raises ``ValueError`` for the others, whose heads stay in their files, as in ComfyUI."""
        if is_ministral(self.config):
            return self.STOPS
        raise ValueError("Llama 3.1 and Mistral Small are loaded without the part that says the next token; use Qwen 3, Gemma or Ministral")


def _language_model(config: LlamaTextConfig) -> Any:
    """transformers' network without its head, on the meta device."""
    from transformers import LlamaConfig, LlamaModel

    arguments = LlamaConfig(**{**config.transformers_arguments(), "attn_implementation": "sdpa"})
    with torch.device("meta"):
        return LlamaModel(arguments).eval().requires_grad_(False)
