"""The layers of Wan's network, in ComfyUI's tree and published weight names.

Shapes: B batch, N tokens of the video, T tokens of the text (those of a picture before them), C width of a token, F frames with a time of
their own (1, or one per latent frame).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.ops
from comfy.ldm.flux.math import apply_rope1

Options = dict[str, Any]
WHOLE_WINDOW = (-1, -1)
PICTURE_TOKENS = 257


def sinusoidal_embedding_1d(dim: int, position: torch.Tensor) -> torch.Tensor:
    """Times *position* (N) as *dim* cosines and sines, float32: N x *dim*. Raises ``ValueError`` for an odd *dim*."""
    if dim % 2:
        raise ValueError(f"times are embedded in pairs of values; {dim} is odd")
    half = dim // 2
    steps = torch.arange(half, device=position.device, dtype=torch.float32)
    angles = position.float()[:, None] * torch.pow(10000, -steps / half)
    return torch.cat((angles.cos(), angles.sin()), dim=1)


def repeat_e(e: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Values per time *e* (B x F x C), each repeated for the tokens of *x* (B x N x C) that are of its time; of a single time, itself."""
    times, tokens = e.shape[1], x.shape[1]
    each = tokens // times
    if times in (1, tokens):
        return e
    if each * times == tokens:
        return e.repeat_interleave(each, dim=1)
    return e.repeat_interleave(each + 1, dim=1)[:, :tokens]


def _kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The device and dtype of *settings*, which also hold the layers' classes as ``operations``."""
    return {"device": settings.get("device"), "dtype": settings.get("dtype")}


class WanSelfAttention(torch.nn.Module):
    """Attention of the video's tokens to each other; queries and keys are normalised over all heads, then turned by their places."""

    q: Any
    k: Any
    v: Any
    o: Any
    norm_q: torch.nn.Module
    norm_k: torch.nn.Module

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: Sequence[int] = WHOLE_WINDOW,
        qk_norm: bool = True,
        eps: float = 1e-6,
        kv_dim: int | None = None,
        operation_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} values do not divide into {num_heads} heads")
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.window_size, self.qk_norm, self.eps = window_size, qk_norm, eps
        settings = dict(operation_settings or {})
        for name, width in (("q", dim), ("k", kv_dim or dim), ("v", kv_dim or dim), ("o", dim)):
            setattr(self, name, settings["operations"].Linear(width, dim, **_kept(settings)))
        self.norm_q, self.norm_k = self._norm(settings), self._norm(settings)

    def _norm(self, settings: Mapping[str, Any]) -> torch.nn.Module:
        if not self.qk_norm:
            return torch.nn.Identity()
        return settings["operations"].RMSNorm(self.dim, eps=self.eps, elementwise_affine=True, **_kept(settings))

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: Options, **settings: Any) -> torch.Tensor:
        """The attention of *query* to *key* and *value*, all B x N x C; looked up at each call, for packs that replace it."""
        attention = comfy.ldm.modules.attention.optimized_attention
        return attention(query, key, value, heads=self.num_heads, transformer_options=options, **settings)

    def forward(self, x: torch.Tensor, freqs: torch.Tensor, transformer_options: Options | None = None) -> torch.Tensor:
        """*x* B x N x C, *freqs* the rotations of its places. Patches ``attn1_patch`` change the result before the last layer."""
        options = {} if transformer_options is None else transformer_options
        query, key = (
            apply_rope1(norm(layer(x)).unflatten(-1, (self.num_heads, self.head_dim)), freqs)
            for layer, norm in ((self.q, self.norm_q), (self.k, self.norm_k))
        )
        attended = self._attend(query.flatten(2), key.flatten(2), self.v(x), options)
        for patch in options.get("patches", {}).get("attn1_patch", ()):
            attended = patch({"x": attended, "q": query, "k": key, "transformer_options": options})
        return self.o(attended)


class WanT2VCrossAttention(WanSelfAttention):
    """Attention of the video's tokens to the text."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, context: torch.Tensor, transformer_options: Options | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """*x* B x N x C, *context* B x T x C."""
        options = {} if transformer_options is None else transformer_options
        return self.o(self._attend(self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context), options))


class WanI2VCrossAttention(WanSelfAttention):
    """Attention of the video's tokens to the text and, with keys and values of its own, to a picture."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: Sequence[int] = WHOLE_WINDOW,
        qk_norm: bool = True,
        eps: float = 1e-6,
        operation_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings)
        settings = dict(operation_settings or {})
        self.k_img, self.v_img = (settings["operations"].Linear(dim, dim, **_kept(settings)) for _ in range(2))
        self.norm_k_img = self._norm(settings)

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, context: torch.Tensor, context_img_len: int | None, transformer_options: Options | None = None
    ) -> torch.Tensor:
        """*x* B x N x C, *context* B x T x C: the picture's tokens, *context_img_len* of them, then the text's.

        Without a picture (None) all of it is both, as in ComfyUI.
        """
        options = {} if transformer_options is None else transformer_options
        picture, text = context[:, :context_img_len], context[:, context_img_len:]
        query = self.norm_q(self.q(x))
        seen = self._attend(query, self.norm_k_img(self.k_img(picture)), self.v_img(picture), options, low_precision_attention=False)
        return self.o(self._attend(query, self.norm_k(self.k(text)), self.v(text), options) + seen)


WAN_CROSSATTENTION_CLASSES: dict[str, type[WanSelfAttention]] = {
    "t2v_cross_attn": WanT2VCrossAttention,
    "i2v_cross_attn": WanI2VCrossAttention,
}


class WanFeedForward(torch.nn.Sequential):
    """Linear, GELU, linear; the activation is the second linear layer's input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        widening, _, narrowing = self
        return comfy.ops.linear_input_act(narrowing, widening(x), "gelu_tanh")


class WanAttentionBlock(torch.nn.Module):
    """Attention to the video, to the text, and a feed-forward layer; the time scales, shifts and gates the first and the last."""

    def __init__(
        self,
        cross_attn_type: str,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        window_size: Sequence[int] = WHOLE_WINDOW,
        qk_norm: bool = True,
        cross_attn_norm: bool = False,
        eps: float = 1e-6,
        operation_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        settings = dict(operation_settings or {})
        kept, layers = _kept(settings), settings["operations"]
        self.dim, self.ffn_dim, self.num_heads = dim, ffn_dim, num_heads
        self.window_size, self.qk_norm, self.cross_attn_norm, self.eps = window_size, qk_norm, cross_attn_norm, eps
        self.norm1 = layers.LayerNorm(dim, eps, elementwise_affine=False, **kept)
        self.self_attn = WanSelfAttention(dim, num_heads, window_size, qk_norm, eps, operation_settings=settings)
        self.norm3 = layers.LayerNorm(dim, eps, elementwise_affine=True, **kept) if cross_attn_norm else torch.nn.Identity()
        kind = WAN_CROSSATTENTION_CLASSES[cross_attn_type]
        self.cross_attn = kind(dim, num_heads, WHOLE_WINDOW, qk_norm, eps, operation_settings=settings)
        self.norm2 = layers.LayerNorm(dim, eps, elementwise_affine=False, **kept)
        self.ffn = WanFeedForward(layers.Linear(dim, ffn_dim, **kept), torch.nn.GELU("tanh"), layers.Linear(ffn_dim, dim, **kept))
        self.modulation = torch.nn.Parameter(torch.empty(1, 6, dim, **kept))

    def time_values(self, x: torch.Tensor, e: torch.Tensor) -> list[torch.Tensor]:
        """Six values per time (B x F x C): shift, scale and gate of the attention, then of the feed-forward layer.

        *e*: B x F x 6 x C, or B x 6 x C.
        """
        own = comfy.model_management.cast_to(self.modulation, dtype=x.dtype, device=x.device)
        times = e.unsqueeze(1) if e.ndim < 4 else e
        return list((own.unsqueeze(0) + times).unbind(2))

    def forward(
        self,
        x: torch.Tensor,
        e: torch.Tensor,
        freqs: torch.Tensor,
        context: torch.Tensor,
        context_img_len: int | None = PICTURE_TOKENS,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """*x* B x N x C, *e* see :meth:`time_values`. Patches ``attn2_patch`` change *x* after the attention to the text."""
        options = {} if transformer_options is None else transformer_options
        shift1, scale1, gate1, shift2, scale2, gate2 = self.time_values(x, e)
        x = x.contiguous()
        attended = self.self_attn(self._scaled(self.norm1(x), shift1, scale1), freqs, transformer_options=options)
        x = torch.addcmul(x, attended, repeat_e(gate1, x))
        del attended
        x = x + self.cross_attn(self.norm3(x), context, context_img_len=context_img_len, transformer_options=options)
        for patch in options.get("patches", {}).get("attn2_patch", ()):
            x = patch({"x": x, "transformer_options": options})
        return torch.addcmul(x, self.ffn(self._scaled(self.norm2(x), shift2, scale2)), repeat_e(gate2, x))

    @staticmethod
    def _scaled(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(repeat_e(shift, x), x, 1 + repeat_e(scale, x))


class VaceWanAttentionBlock(WanAttentionBlock):
    """A block of VACE's second stream, which also gives what is added to the first. The first such block begins with a layer of its own."""

    def __init__(
        self,
        cross_attn_type: str,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        window_size: Sequence[int] = WHOLE_WINDOW,
        qk_norm: bool = True,
        cross_attn_norm: bool = False,
        eps: float = 1e-6,
        block_id: int = 0,
        operation_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(cross_attn_type, dim, ffn_dim, num_heads, window_size, qk_norm, cross_attn_norm, eps, operation_settings)
        settings = dict(operation_settings or {})
        self.block_id = block_id
        if block_id == 0:
            self.before_proj = settings["operations"].Linear(dim, dim, **_kept(settings))
        self.after_proj = settings["operations"].Linear(dim, dim, **_kept(settings))

    def forward(self, c: torch.Tensor, x: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """(what is added to the first stream, the second stream *c* after this block). *x*: the first stream before its first block."""
        if self.block_id == 0:
            c = self.before_proj(c) + x
        c = super().forward(c, **kwargs)
        return self.after_proj(c), c


class Head(torch.nn.Module):
    """The last layer: tokens to the values of their patches."""

    def __init__(
        self, dim: int, out_dim: int, patch_size: Sequence[int], eps: float = 1e-6, operation_settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        settings = dict(operation_settings or {})
        kept, layers = _kept(settings), settings["operations"]
        self.dim, self.out_dim, self.patch_size, self.eps = dim, out_dim, patch_size, eps
        self.norm = layers.LayerNorm(dim, eps, elementwise_affine=False, **kept)
        self.head = layers.Linear(dim, math.prod(patch_size) * out_dim, **kept)
        self.modulation = torch.nn.Parameter(torch.empty(1, 2, dim, **kept))

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """*x* B x N x C, *e* the embedded times: B x F x C, or B x C."""
        own = comfy.model_management.cast_to(self.modulation, dtype=x.dtype, device=x.device)
        times = e.unsqueeze(1) if e.ndim < 3 else e
        shift, scale = (repeat_e(value, x) for value in (own.unsqueeze(0) + times.unsqueeze(2)).unbind(2))
        return self.head(torch.addcmul(shift, self.norm(x), 1 + scale))


class MLPProj(torch.nn.Module):
    """What an image encoder saw, as tokens beside the text. *flf_pos_embed_token_number*: tokens with learnt places, of two pictures."""

    def __init__(
        self, in_dim: int, out_dim: int, flf_pos_embed_token_number: int | None = None, operation_settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        settings = dict(operation_settings or {})
        kept, layers = _kept(settings), settings["operations"]
        self.proj = torch.nn.Sequential(
            layers.LayerNorm(in_dim, **kept),
            layers.Linear(in_dim, in_dim, **kept),
            torch.nn.GELU(),
            layers.Linear(in_dim, out_dim, **kept),
            layers.LayerNorm(out_dim, **kept),
        )
        self.emb_pos: torch.nn.Parameter | None = None
        if flf_pos_embed_token_number is not None:
            self.emb_pos = torch.nn.Parameter(torch.empty(1, flf_pos_embed_token_number, in_dim, **kept))

    def forward(self, image_embeds: torch.Tensor) -> torch.Tensor:
        """B x tokens x in to B x tokens x C; tokens that have no place are left out."""
        if self.emb_pos is not None:
            image_embeds = image_embeds[:, : self.emb_pos.shape[1]]
            places = self.emb_pos[:, : image_embeds.shape[1]]
            image_embeds = image_embeds + comfy.model_management.cast_to(places, dtype=image_embeds.dtype, device=image_embeds.device)
        return self.proj(image_embeds)
