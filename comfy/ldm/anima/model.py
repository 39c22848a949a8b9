"""The network of Anima: that of Cosmos-Predict2 behind an adapter that reads Qwen's states with the tokens of T5.

Shapes: B batch, N tokens of T5, T tokens of Qwen, C channels, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.ops
from comfy.ldm.cosmos.predict2 import MiniTrainDIT
from comfy.ldm.modules.attention import optimized_attention

EPS = 1e-6
THETA = 10000
VOCABULARY = 32128  # T5's
WORDS = 512  # tokens that the text is filled up to with zeros
Turns = tuple[torch.Tensor, torch.Tensor]


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    """The second half of the last dimension with the other sign, then the first."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def apply_rotary_pos_emb(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1) -> torch.Tensor:
    """*x* (B x H x N x D) turned by angles with *cos* and *sin* (1 x N x D)."""
    return x * cos.unsqueeze(unsqueeze_dim) + rotate_half(x) * sin.unsqueeze(unsqueeze_dim)


class RotaryEmbedding(torch.nn.Module):
    """Cosines and sines of positions."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = head_dim, THETA

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> Turns:
        """Of *position_ids* (B x N): B x N x D each, in *x*'s dtype."""
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=x.device) / self.head_dim
        angles = position_ids[..., None].float() * (1.0 / self.rope_theta**exponents)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


class Attention(torch.nn.Module):
    """Attention with normalised and rotated queries and keys, without biases."""

    def __init__(
        self, query_dim: int, context_dim: int, n_heads: int, head_dim: int, device: Any = None, dtype: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        self.n_heads, self.head_dim, self.query_dim, self.context_dim = n_heads, head_dim, query_dim, context_dim
        kept: dict[str, Any] = {"device": device, "dtype": dtype}
        inner = n_heads * head_dim
        for name, source in (("q", query_dim), ("k", context_dim), ("v", context_dim)):
            setattr(self, f"{name}_proj", operations.Linear(source, inner, bias=False, **kept))
        self.q_norm, self.k_norm = (operations.RMSNorm(head_dim, eps=EPS, **kept) for _ in range(2))
        self.o_proj = operations.Linear(inner, query_dim, bias=False, **kept)

    def _heads(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, f"{name}_proj")(x).unflatten(-1, (self.n_heads, self.head_dim))

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        position_embeddings: Turns | None = None,
        position_embeddings_context: Turns | None = None,
    ) -> torch.Tensor:
        """Tokens *x* (B x N x C) attend to *context* (B x T x C; None: themselves). *mask* holds True where they may."""
        source = x if context is None else context
        q, k = self.q_norm(self._heads("q", x)).transpose(1, 2), self.k_norm(self._heads("k", source)).transpose(1, 2)
        if position_embeddings is not None and position_embeddings_context is not None:
            q, k = apply_rotary_pos_emb(q, *position_embeddings), apply_rotary_pos_emb(k, *position_embeddings_context)
        v = self._heads("v", source).transpose(1, 2)
        return self.o_proj(optimized_attention(q, k, v, self.n_heads, mask=mask, skip_reshape=True))


class TransformerBlock(torch.nn.Module):
    """T5's tokens attend to each other (with *use_self_attn*), then to Qwen's states, then pass a feed-forward layer."""

    def __init__(
        self,
        source_dim: int,
        model_dim: int,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        use_self_attn: bool = False,
        layer_norm: bool = False,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"device": device, "dtype": dtype}
        head, inner = model_dim // num_heads, int(model_dim * mlp_ratio)

        def norm() -> torch.nn.Module:
            return operations.LayerNorm(model_dim, **kept) if layer_norm else operations.RMSNorm(model_dim, eps=EPS, **kept)

        self.use_self_attn = use_self_attn
        if use_self_attn:
            self.norm_self_attn = norm()
            self.self_attn = Attention(model_dim, model_dim, num_heads, head, operations=operations, **kept)
        self.norm_cross_attn = norm()
        self.cross_attn = Attention(model_dim, source_dim, num_heads, head, operations=operations, **kept)
        self.norm_mlp = norm()
        self.mlp = torch.nn.Sequential(
            operations.Linear(model_dim, inner, **kept), torch.nn.GELU(), operations.Linear(inner, model_dim, **kept)
        )

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor,
        target_attention_mask: torch.Tensor | None = None,
        source_attention_mask: torch.Tensor | None = None,
        position_embeddings: Turns | None = None,
        position_embeddings_context: Turns | None = None,
    ) -> torch.Tensor:
        """Tokens *x* (B x N x C) after the block."""
        own = position_embeddings
        if self.use_self_attn:
            x = x + self.self_attn(self.norm_self_attn(x), target_attention_mask, None, own, own)
        x = x + self.cross_attn(self.norm_cross_attn(x), source_attention_mask, context, own, position_embeddings_context)
        return x + self.mlp(self.norm_mlp(x))


class LLMAdapter(torch.nn.Module):
    """Makes the text for the network: T5's tokens, embedded, that have attended to Qwen's states."""

    def __init__(
        self,
        source_dim: int = 1024,
        target_dim: int = 1024,
        model_dim: int = 1024,
        num_layers: int = 6,
        num_heads: int = 16,
        use_self_attn: bool = True,
        layer_norm: bool = False,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
        vocabulary: int = VOCABULARY,
    ) -> None:
        super().__init__()
        kept: dict[str, Any] = {"device": device, "dtype": dtype}
        self.embed = operations.Embedding(vocabulary, target_dim, **kept)
        self.in_proj = torch.nn.Identity() if model_dim == target_dim else operations.Linear(target_dim, model_dim, **kept)
        self.rotary_emb = RotaryEmbedding(model_dim // num_heads)
        block: dict[str, Any] = {"use_self_attn": use_self_attn, "layer_norm": layer_norm, "operations": operations, **kept}
        self.blocks = torch.nn.ModuleList(TransformerBlock(source_dim, model_dim, num_heads, **block) for _ in range(num_layers))
        self.out_proj = operations.Linear(model_dim, target_dim, **kept)
        self.norm = operations.RMSNorm(target_dim, eps=EPS, **kept)

    def forward(
        self,
        source_hidden_states: torch.Tensor,
        target_input_ids: torch.Tensor,
        target_attention_mask: torch.Tensor | None = None,
        source_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """B x N x target width, of Qwen's states (B x T x source width) and T5's tokens (B x N). Masks are 1 where there is a token."""
        masks = [_as_scores(mask) for mask in (target_attention_mask, source_attention_mask)]
        context = source_hidden_states
        x = self.in_proj(self.embed(target_input_ids, out_dtype=context.dtype))
        own, others = (self.rotary_emb(x, torch.arange(part.shape[1], device=x.device)[None]) for part in (x, context))
        for block in self.blocks:
            x = block(x, context, *masks, own, others)
        return self.norm(self.out_proj(x))


def _as_scores(mask: torch.Tensor | None) -> torch.Tensor | None:
    if mask is None:
        return None
    allowed = mask.to(torch.bool)
    return allowed[:, None, None] if allowed.ndim == 2 else allowed


class Anima(MiniTrainDIT):
    """The network. *llm_adapter_config* are the adapter's sizes, where they are not the published ones."""

    def __init__(self, *args: Any, llm_adapter_config: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made: dict[str, Any] = {name: kwargs.get(name) for name in ("device", "dtype")}
        operations = kwargs.get("operations") or comfy.ops.disable_weight_init
        self.llm_adapter = LLMAdapter(operations=operations, **made, **(llm_adapter_config or {}))

    def preprocess_text_embeds(
        self, text_embeds: torch.Tensor, text_ids: torch.Tensor | None, t5xxl_weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The text for the network, B x 512 or more tokens x C, of Qwen's states, T5's tokens (B x N) and their weights (B x N x 1).

        Without tokens *text_embeds* is that text itself.
        """
        if text_ids is None:
            return text_embeds
        text = self.llm_adapter(text_embeds, text_ids)
        if t5xxl_weights is not None:
            text = text * t5xxl_weights
        return torch.nn.functional.pad(text, (0, 0, 0, max(0, WORDS - text.shape[1])))

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The prediction for latents *x*; with ``t5xxl_ids`` (and ``t5xxl_weights``) *context* are Qwen's states."""
        ids, weights = kwargs.pop("t5xxl_ids", None), kwargs.pop("t5xxl_weights", None)
        return super().forward(x, timesteps, self.preprocess_text_embeds(context, ids, weights), *args, **kwargs)
