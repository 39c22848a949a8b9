"""The layers of Qwen-Image's network, in ComfyUI's tree and published weight names.

Shapes: B batch, I tokens of the picture and its references, T tokens of text, C width of a token.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.modules.attention
from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.flux.math import apply_rope1

TIME_CHANNELS, TIME_SCALE = 256, 1000
EPS = 1e-6


class GELU(torch.nn.Module):
    """A linear layer and GELU."""

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        approximate: str = "none",
        bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.proj = operations.Linear(dim_in, dim_out, bias=bias, dtype=dtype, device=device)
        self.approximate = approximate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(…, in) to (…, out)."""
        return F.gelu(self.proj(hidden_states), approximate=self.approximate)


class FeedForward(torch.nn.Module):
    """A wider layer with GELU, dropout (inactive), linear."""

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        mult: float = 4,
        dropout: float = 0.0,
        inner_dim: int | None = None,
        bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        inner = int(dim * mult) if inner_dim is None else inner_dim
        widening = GELU(dim, inner, "tanh", bias, dtype, device, operations)
        narrowing = operations.Linear(inner, dim if dim_out is None else dim_out, bias=bias, dtype=dtype, device=device)
        self.net = torch.nn.ModuleList([widening, torch.nn.Dropout(dropout), narrowing])

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(…, C) to (…, C out)."""
        for layer in self.net:
            hidden_states = layer(hidden_states)
        return hidden_states


class TimestepEmbedding(torch.nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, in_channels: int, time_embed_dim: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(in_channels, time_embed_dim, dtype=dtype, device=device)
        self.linear_2 = operations.Linear(time_embed_dim, time_embed_dim, dtype=dtype, device=device)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """B x in to B x C."""
        return self.linear_2(F.silu(self.linear_1(sample)))


class QwenTimestepProjEmbeddings(torch.nn.Module):
    """The embedded time, and in the layered model whether the picture is one of several layers."""

    def __init__(
        self,
        embedding_dim: int,
        pooled_projection_dim: int,
        use_additional_t_cond: bool = False,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(TIME_CHANNELS, embedding_dim, dtype, device, operations)
        self.use_additional_t_cond = use_additional_t_cond
        if use_additional_t_cond:
            self.addition_t_embedding = operations.Embedding(2, embedding_dim, dtype=dtype, device=device)

    def forward(self, timestep: torch.Tensor, hidden_states: torch.Tensor, addition_t_cond: torch.Tensor | None = None) -> torch.Tensor:
        """Times (B, 0 to 1) as B x C in the dtype of *hidden_states*. *addition_t_cond*: B numbers, 0 or 1; None: all 0."""
        waves = timestep_embedding(timestep * TIME_SCALE, TIME_CHANNELS).to(hidden_states.dtype)
        embedded = self.timestep_embedder(waves)
        if not self.use_additional_t_cond:
            return embedded
        if addition_t_cond is None:
            addition_t_cond = torch.zeros(len(embedded), dtype=torch.long, device=embedded.device)
        return embedded + self.addition_t_embedding(addition_t_cond, out_dtype=embedded.dtype)


class Attention(torch.nn.Module):
    """Attention of text and picture to both, with weights of its own for each."""

    def __init__(
        self,
        query_dim: int,
        dim_head: int = 64,
        heads: int = 8,
        out_dim: int | None = None,
        out_context_dim: int | None = None,
        bias: bool = False,
        out_bias: bool = True,
        eps: float = 1e-5,
        dropout: float = 0.0,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.inner_dim = self.inner_kv_dim = dim_head * heads if out_dim is None else out_dim
        self.heads, self.dim_head, self.dropout = heads, dim_head, dropout
        self.out_dim = query_dim if out_dim is None else out_dim
        self.out_context_dim = query_dim if out_context_dim is None else out_context_dim
        kept = {"dtype": dtype, "device": device}
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            setattr(self, name, operations.RMSNorm(dim_head, eps=eps, **kept))
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
            setattr(self, name, operations.Linear(query_dim, self.inner_dim, bias=bias, **kept))
        self.to_out = torch.nn.ModuleList(
            [operations.Linear(self.inner_dim, self.out_dim, bias=out_bias, **kept), torch.nn.Dropout(dropout)]
        )
        self.to_add_out = operations.Linear(self.inner_dim, self.out_context_dim, bias=out_bias, **kept)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(picture B x I x C, text B x T x C). *encoder_hidden_states_mask*: B x T, added to the scores of the text's keys.

        ``attn1_patch`` entries of *transformer_options* may change queries, keys, values (B x heads x (T + I) x D), rotations and mask.
        """
        options = {} if transformer_options is None else transformer_options
        text_tokens, tokens = encoder_hidden_states.shape[1], encoder_hidden_states.shape[1] + hidden_states.shape[1]
        query = self._joint(self.add_q_proj, self.to_q, encoder_hidden_states, hidden_states, self.norm_added_q, self.norm_q)
        key = self._joint(self.add_k_proj, self.to_k, encoder_hidden_states, hidden_states, self.norm_added_k, self.norm_k)
        value = self._joint(self.add_v_proj, self.to_v, encoder_hidden_states, hidden_states)
        mask = None
        if encoder_hidden_states_mask is not None:
            mask = query.new_zeros(len(query), 1, tokens)
            mask[:, 0, :text_tokens] = encoder_hidden_states_mask
        for patch in options.get("patches", {}).get("attn1_patch", ()):
            extra = {**options, "img_slice": [text_tokens, tokens]}
            out = patch(query, key, value, pe=image_rotary_emb, attn_mask=encoder_hidden_states_mask, extra_options=extra)
            query, key, value = out.get("q", query), out.get("k", key), out.get("v", value)
            image_rotary_emb = out.get("pe", image_rotary_emb)
            encoder_hidden_states_mask = out.get("attn_mask", encoder_hidden_states_mask)
        if image_rotary_emb is not None:
            query, key = apply_rope1(query, image_rotary_emb), apply_rope1(key, image_rotary_emb)
        attended = comfy.ldm.modules.attention.optimized_attention_masked(
            query, key, value, self.heads, mask, transformer_options=options, skip_reshape=True
        )
        return self.to_out[1](self.to_out[0](attended[:, text_tokens:])), self.to_add_out(attended[:, :text_tokens])

    def _joint(
        self,
        text_layer: Any,
        picture_layer: Any,
        text: torch.Tensor,
        picture: torch.Tensor,
        text_norm: Any = None,
        picture_norm: Any = None,
    ) -> torch.Tensor:
        """Text and picture, projected and normalised: B x heads x (T + I) x D."""
        halves = []
        for layer, tokens, norm in ((text_layer, text, text_norm), (picture_layer, picture, picture_norm)):
            projected = layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            halves.append(projected if norm is None else norm(projected))
        return torch.cat(halves, dim=2)


class QwenImageTransformerBlock(torch.nn.Module):
    """Joint attention and one feed-forward layer per stream, each shifted, scaled and gated by the time."""

    img_mod: torch.nn.Module
    img_norm1: torch.nn.Module
    img_norm2: torch.nn.Module
    img_mlp: torch.nn.Module
    txt_mod: torch.nn.Module
    txt_norm1: torch.nn.Module
    txt_norm2: torch.nn.Module
    txt_mlp: torch.nn.Module

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        attention_head_dim: int,
        eps: float = EPS,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.dim, self.num_attention_heads, self.attention_head_dim = dim, num_attention_heads, attention_head_dim
        kept = {"dtype": dtype, "device": device}
        for stream in ("img", "txt"):
            modulation = torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(dim, 6 * dim, **kept))
            setattr(self, f"{stream}_mod", modulation)
            for number in (1, 2):
                setattr(self, f"{stream}_norm{number}", operations.LayerNorm(dim, elementwise_affine=False, eps=eps, **kept))
            setattr(self, f"{stream}_mlp", FeedForward(dim, dim, operations=operations, **kept))
        self.attn = Attention(dim, attention_head_dim, num_attention_heads, bias=True, eps=eps, out_dim=dim, operations=operations, **kept)

    def _modulate(
        self, x: torch.Tensor, mod_params: torch.Tensor, timestep_zero_index: int | None = None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """*x* shifted and scaled, and the gates (one per time). Tokens from *timestep_zero_index* on are at time 0, whose parameters
        are the second half of *mod_params*' rows."""
        parts = _at_both_times(x, timestep_zero_index)
        modulated, gates = [], []
        for part, row in zip(parts, mod_params.unsqueeze(1).chunk(len(parts))):
            shift, scale, gate = row.chunk(3, dim=-1)
            modulated.append(torch.addcmul(shift, part, 1 + scale))
            gates.append(gate)
        return _joined(modulated), gates

    def _apply_gate(
        self, x: torch.Tensor, y: torch.Tensor, gate: Sequence[torch.Tensor], timestep_zero_index: int | None = None
    ) -> torch.Tensor:
        """*y* and the gated *x*."""
        both = zip(_at_both_times(x, timestep_zero_index), _at_both_times(y, timestep_zero_index), gate)
        return _joined([torch.addcmul(kept, own, part) for part, kept, own in both])

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor | None,
        temb: torch.Tensor,
        image_rotary_emb: torch.Tensor | None = None,
        timestep_zero_index: int | None = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(text B x T x C, picture B x I x C). *temb*: B x C, or 2B x C with *timestep_zero_index*."""
        image1, image2 = self.img_mod(temb).chunk(2, dim=-1)
        text1, text2 = self.txt_mod(temb if timestep_zero_index is None else temb.chunk(2)[0]).chunk(2, dim=-1)
        image, image_gate = self._modulate(self.img_norm1(hidden_states), image1, timestep_zero_index)
        text, text_gate = self._modulate(self.txt_norm1(encoder_hidden_states), text1)
        image, text = self.attn(
            hidden_states=image,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=encoder_hidden_states_mask,
            image_rotary_emb=image_rotary_emb,
            transformer_options=transformer_options,
        )
        hidden_states = self._apply_gate(image, hidden_states, image_gate, timestep_zero_index)
        encoder_hidden_states = self._apply_gate(text, encoder_hidden_states, text_gate)
        image, image_gate = self._modulate(self.img_norm2(hidden_states), image2, timestep_zero_index)
        hidden_states = self._apply_gate(self.img_mlp(image), hidden_states, image_gate, timestep_zero_index)
        text, text_gate = self._modulate(self.txt_norm2(encoder_hidden_states), text2)
        return self._apply_gate(self.txt_mlp(text), encoder_hidden_states, text_gate), hidden_states


def _at_both_times(x: torch.Tensor, timestep_zero_index: int | None) -> tuple[torch.Tensor, ...]:
    return (x,) if timestep_zero_index is None else (x[:, :timestep_zero_index], x[:, timestep_zero_index:])


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class LastLayer(torch.nn.Module):
    """A normalisation that the time scales and shifts."""

    def __init__(
        self,
        embedding_dim: int,
        conditioning_embedding_dim: int,
        elementwise_affine: bool = False,
        eps: float = EPS,
        bias: bool = True,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.linear = operations.Linear(conditioning_embedding_dim, embedding_dim * 2, bias=bias, dtype=dtype, device=device)
        self.norm = operations.LayerNorm(embedding_dim, eps, elementwise_affine=elementwise_affine, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, conditioning_embedding: torch.Tensor) -> torch.Tensor:
        """*x* B x I x C, *conditioning_embedding* B x C."""
        scale, shift = self.linear(F.silu(conditioning_embedding)).unsqueeze(1).chunk(2, dim=-1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)
