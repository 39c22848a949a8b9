"""T5Gemma's encoder as a text encoder, built from transformers' layers: Gemma 2's, with which every token sees every other one.

B. Zhang and others, "Encoder-Decoder Gemma: Improving the Quality-Efficiency Trade-Off via Adaptation" (2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import comfy.ops
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import WeightSource
from comfy.text.gemma import scale_embeddings
from comfy.text.qwen.network import cosines_and_sines, turn_frequencies

Shape = tuple[int, ...]
HEAD = 64  # of a head, which no shape tells
SCORE_LIMIT = 50.0
THETA = 10000.0
NEAR = 4096  # tokens to each side that every other layer attends to, from the first one on
_FIRST = "model.encoder.layers.0."


@dataclass(frozen=True, slots=True)
class T5GemmaConfig:
    """Sizes of one encoder."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    eps: float = 1e-6

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``T5GemmaModuleConfig``."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_heads,
            "head_dim": HEAD,
            "query_pre_attn_scalar": HEAD,
            "attn_logit_softcapping": SCORE_LIMIT,
            "rms_norm_eps": self.eps,
        }


T5_GEMMA = T5GemmaConfig(vocabulary=256000, hidden_size=768, intermediate_size=2048, num_layers=12, num_heads=12, num_key_heads=12)


def read_t5_gemma_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> T5GemmaConfig | None:
    """The encoder that *shapes* describe in published names (no prefix), or None if they describe none. *settings* are not asked."""
    table, wide = shapes.get("model.encoder.embed_tokens.weight"), shapes.get(f"{_FIRST}mlp.gate_proj.weight")
    queries, keys = shapes.get(f"{_FIRST}self_attn.q_proj.weight"), shapes.get(f"{_FIRST}self_attn.k_proj.weight")
    if table is None or wide is None or queries is None or keys is None or f"{_FIRST}pre_self_attn_layernorm.weight" not in shapes:
        return None
    return T5GemmaConfig(
        vocabulary=table[0],
        hidden_size=table[1],
        intermediate_size=wide[0],
        num_layers=count_blocks(shapes, "model.encoder.layers.{}."),
        num_heads=queries[0] // HEAD,
        num_key_heads=keys[0] // HEAD,
    )


class T5GemmaModel(torch.nn.Module):
    """Token embeddings, which it scales itself, to hidden states. Parameters are on the meta device until :meth:`load_weights`."""

    model: Any

    def __init__(self, config: T5GemmaConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.num_layers, self.dtype = config, config.num_layers, dtype
        built = _encoder(config)
        self.model = torch.nn.Module()
        self.model.encoder = torch.nn.Module()
        for name in ("embed_tokens", "layers", "norm"):
            setattr(self.model.encoder, name, getattr(built, name))
        comfy.ops.adopt_layers(self, operations)
        scale_embeddings(self.model.encoder.embed_tokens)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """The token embedding layer."""
        return self.model.encoder.embed_tokens

    def forward(
        self,
        embeds: torch.Tensor,
        num_tokens: list[int],
        attention_mask: torch.Tensor | None = None,
        intermediate_output: int | None = None,
        final_layer_norm_intermediate: bool = True,
        embeds_info: Sequence[dict[str, Any]] = (),
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        """(last hidden state, that of *intermediate_output* or None, None, None); see :class:`comfy.text.text_model.TextModel`."""
        wanted = None if intermediate_output is None else intermediate_output % self.num_layers
        places = torch.arange(embeds.shape[1], device=embeds.device)
        turns = cosines_and_sines(places.to(torch.float32)[:, None] * turn_frequencies(HEAD, THETA, embeds.device), embeds.dtype)
        everywhere, near = (_mask(embeds, attention_mask, limit) for limit in (None, NEAR))
        x, chosen = embeds, None
        for number, layer in enumerate(self.model.encoder.layers):
            x = layer(x, turns, everywhere if number % 2 else near, places[None])
            chosen = x if number == wanted else chosen
        last = self.model.encoder.norm(x)
        if chosen is not None and final_layer_norm_intermediate:
            chosen = self.model.encoder.norm(chosen)
        return last, chosen, None, None

    def load_weights(self, source: WeightSource, dtype: torch.dtype, what: str) -> set[str]:
        """Take the weights from *source*, floating-point ones in *dtype*; returns the names used. *what* names it in errors."""
        part = plain_weights(source)
        load_published(self, part, dtype, what)
        return {name for name, _ in self.named_parameters()}


def _mask(embeds: torch.Tensor, attention_mask: torch.Tensor | None, limit: int | None) -> torch.Tensor | None:
    """What is added to scores (B x 1 x tokens x tokens, or fewer): low for what *attention_mask* hides and what is further than *limit*."""
    tokens = embeds.shape[1]
    hidden = torch.zeros(1, 1, 1, tokens, dtype=torch.bool, device=embeds.device)
    if attention_mask is not None:
        hidden = (attention_mask == 0)[:, None, None]
    elif limit is None or tokens <= limit:
        return None
    if limit is not None and tokens > limit:
        places = torch.arange(tokens, device=embeds.device)
        hidden = hidden | ((places[:, None] - places).abs() > limit)
    return torch.zeros(hidden.shape, dtype=embeds.dtype, device=embeds.device).masked_fill(hidden, torch.finfo(embeds.dtype).min / 4)


def _encoder(config: T5GemmaConfig) -> Any:
    """transformers' network, on the meta device."""
    from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
    from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

    arguments: Any = T5GemmaModuleConfig(**{**config.transformers_arguments(), "attn_implementation": "eager"})
    arguments.is_decoder, arguments.dropout_rate = False, 0.0
    with torch.device("meta"):
        return T5GemmaEncoder(arguments).eval().requires_grad_(False)
