"""Boogu's network in ComfyUI's tree and published weight names: OmniGen2's, with layers before the others in which text and pictures keep
weights of their own.

Shapes: B batch, T tokens of text, P tokens of pictures, N of both, C width of a token.
"""

from __future__ import annotations

from typing import Any

import torch

from comfy.ldm.omnigen.layers import EPS, Attention, LuminaFeedForward, LuminaRMSNormZero, Options, attended
from comfy.ldm.omnigen.omnigen2 import OmniGen2Transformer2DModel, Seen

__all__ = ["BooguDoubleStreamBlock", "BooguDoubleStreamProcessor", "BooguJointAttention", "BooguTransformer2DModel"]


class BooguDoubleStreamProcessor(torch.nn.Module):
    """The queries, keys and values of text and pictures, and the layers after what each attends to."""

    def __init__(
        self, dim: int, head_dim: int, heads: int, kv_heads: int, dtype: Any = None, device: Any = None, operations: Any = None
    ) -> None:
        super().__init__()
        inner, shared = head_dim * heads, head_dim * kv_heads
        for stream in ("img", "instruct"):
            for name, outer in (("to_q", inner), ("to_k", shared), ("to_v", shared), ("out", inner)):
                setattr(self, f"{stream}_{name}", operations.Linear(inner, outer, bias=False, dtype=dtype, device=device))

    def forward(
        self,
        attn: Any,
        img_hidden_states: torch.Tensor,
        instruct_hidden_states: torch.Tensor,
        rotary_emb: Any,
        transformer_options: Options,
    ) -> torch.Tensor:
        """B x N x C of text (B x T x C) and pictures (B x P x C), with the norms and the last layer of *attn*."""
        values = [
            torch.cat((getattr(self, f"instruct_{name}")(instruct_hidden_states), getattr(self, f"img_{name}")(img_hidden_states)), dim=1)
            for name in ("to_q", "to_k", "to_v")
        ]
        words = instruct_hidden_states.shape[1]
        both = attended(attn, values, rotary_emb, options=transformer_options)
        joined = torch.cat((getattr(self, "instruct_out")(both[:, :words]), getattr(self, "img_out")(both[:, words:])), dim=1)  # noqa: B009 - made in a loop
        result: torch.Tensor = attn.to_out[0](joined)
        return result


class BooguJointAttention(torch.nn.Module):
    """Attention of text and pictures to both."""

    def __init__(
        self,
        dim: int,
        head_dim: int,
        heads: int,
        kv_heads: int,
        eps: float = EPS,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.heads, self.kv_heads, self.dim_head = heads, kv_heads, head_dim
        self.norm_q, self.norm_k = (operations.RMSNorm(head_dim, eps=eps, **kept) for _ in range(2))
        self.to_out = torch.nn.Sequential(operations.Linear(heads * head_dim, dim, bias=False, **kept), torch.nn.Dropout(0.0))
        self.processor = BooguDoubleStreamProcessor(dim, head_dim, heads, kv_heads, **kept, operations=operations)

    def forward(
        self, img_hidden_states: torch.Tensor, instruct_hidden_states: torch.Tensor, rotary_emb: Any, transformer_options: Options
    ) -> torch.Tensor:
        """B x N x C: the text's tokens first."""
        result: torch.Tensor = self.processor(self, img_hidden_states, instruct_hidden_states, rotary_emb, transformer_options)
        return result


class BooguDoubleStreamBlock(torch.nn.Module):
    """Attention to text and pictures, of pictures to themselves, and a wider layer for each; all scaled and gated by the time."""

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        num_kv_heads: int,
        multiple_of: int,
        norm_eps: float,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        made: Options = {**kept, "operations": operations}
        sizes = dim, dim // num_attention_heads, num_attention_heads, num_kv_heads
        self.img_instruct_attn, self.img_self_attn = BooguJointAttention(*sizes, **made), Attention(*sizes, **made)
        self.img_feed_forward, self.instruct_feed_forward = (LuminaFeedForward(dim, 4 * dim, multiple_of, **made) for _ in range(2))
        for name in ("img_norm1", "img_norm2", "img_norm3", "instruct_norm1", "instruct_norm2"):
            setattr(self, name, LuminaRMSNormZero(dim, norm_eps, **made))
        plain = ("img_attn_norm", "img_self_attn_norm", "img_ffn_norm1", "img_ffn_norm2")
        for name in (*plain, "instruct_attn_norm", "instruct_ffn_norm1", "instruct_ffn_norm2"):
            setattr(self, name, operations.RMSNorm(dim, eps=norm_eps, **kept))

    def forward(
        self, img: torch.Tensor, instruct: torch.Tensor, rotary_emb: torch.Tensor, temb: torch.Tensor, transformer_options: Options
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(pictures B x P x C, text B x T x C), both after the block. *rotary_emb*: of text, then pictures."""
        words = instruct.shape[1]
        parts: dict[str, Any] = dict(self.named_children())
        own, gate, wide_scale, wide_gate = parts["img_norm1"](img, temb)
        fed, wide_shift, *_ = parts["img_norm2"](img, temb)
        alone, alone_gate, *_ = parts["img_norm3"](img, temb)
        told, told_gate, told_scale, told_wide_gate = parts["instruct_norm1"](instruct, temb)
        told_fed, told_shift, *_ = parts["instruct_norm2"](instruct, temb)
        joint = self.img_instruct_attn(own, told, rotary_emb, transformer_options)
        among = self.img_self_attn(alone, alone, None, rotary_emb[:, :, words:], transformer_options)
        img = img + gate.tanh() * parts["img_attn_norm"](joint[:, words:])
        img = img + alone_gate.tanh() * parts["img_self_attn_norm"](among)
        wide = self.img_feed_forward(parts["img_ffn_norm1"](torch.addcmul(wide_shift, 1 + wide_scale, fed)))
        img = img + wide_gate.tanh() * parts["img_ffn_norm2"](wide)
        instruct = instruct + told_gate.tanh() * parts["instruct_attn_norm"](joint[:, :words])
        wide = self.instruct_feed_forward(parts["instruct_ffn_norm1"](torch.addcmul(told_shift, 1 + told_scale, told_fed)))
        return img, instruct + told_wide_gate.tanh() * parts["instruct_ffn_norm2"](wide)


class BooguTransformer2DModel(OmniGen2Transformer2DModel):
    """The network."""

    LAYERS = "single_stream_layers"

    def __init__(
        self,
        *,
        instruction_feat_dim: int = 4096,
        num_double_stream_layers: int = 8,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
        **settings: Any,
    ) -> None:
        kept: Options = {"dtype": dtype, "device": device, "operations": operations}
        super().__init__(text_feat_dim=instruction_feat_dim, **kept, **settings)
        self.double_stream_layers = torch.nn.ModuleList(
            BooguDoubleStreamBlock(*self._sizes, **kept) for _ in range(num_double_stream_layers)
        )

    def _run_layers(self, seen: Seen, options: Options) -> torch.Tensor:
        """All tokens after the last layer: B x N x C."""
        text, pictures = seen.text, seen.pictures
        for layer in self.double_stream_layers:
            pictures, text = layer(pictures, text, seen.rotations, seen.time, options)
        return super()._run_layers(Seen(text, pictures, seen.rotations, seen.time), options)
