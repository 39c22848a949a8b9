"""Attention functions and the transformer layers of Stable Diffusion's UNet, with the hooks that node packs use.

The layers are diffusers' (they own the parameters); :func:`adopt_transformers` gives instances that diffusers built the classes of
this module, whose ``forward`` follows ComfyUI's contract. Every layer looks up ``optimized_attention`` in this module when it is
called, so a pack may replace that name. Shapes: B batch, N tokens, C channels, H heads, D head width.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.models import activations as diffusers_activations
from diffusers.models import attention as diffusers_attention
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel

log = logging.getLogger(__name__)

AttentionFunction = Callable[..., torch.Tensor]
Patches = Mapping[str, Any]


def exists(val: Any) -> bool:
    """Whether *val* is not None."""
    return val is not None


def default(val: Any, d: Any) -> Any:
    """*val*, or *d* if it is None."""
    return d if val is None else val


def wrap_attn(func: AttentionFunction) -> AttentionFunction:
    """Let ``transformer_options["optimized_attention_override"]`` take the place of *func*.

    The override is called with *func* and the call's arguments; attention functions that it calls with those keyword arguments are
    not overridden again.
    """

    @functools.wraps(func)
    def overridable(*args: Any, **kwargs: Any) -> torch.Tensor:
        inside = "_inside_attn_wrapper" in kwargs
        kwargs["_inside_attn_wrapper"] = True
        override = None if inside else (kwargs.get("transformer_options") or {}).get("optimized_attention_override")
        return func(*args, **kwargs) if override is None else override(func, *args, **kwargs)

    return overridable


def _split_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    batch, tokens, width = tensor.shape
    return tensor.view(batch, tokens, heads, width // heads).transpose(1, 2)


def _join_heads(tensor_BHND: torch.Tensor) -> torch.Tensor:
    return tensor_BHND.transpose(1, 2).flatten(2)


def _broadcast_mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    if mask is not None and mask.ndim == 2:
        mask = mask[None]
    return mask[:, None] if mask is not None and mask.ndim == 3 else mask


@wrap_attn
def attention_pytorch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """Multi-head attention by torch's fused kernels: B x N x (H·D) in and out, or B x H x N x D where the flags say so.

    *mask*: boolean (True attends) or additive, (B x) (H x) N x N. Keyword arguments ``scale`` and ``enable_gqa`` are passed on.
    """
    if not skip_reshape:
        key_heads = k.shape[-1] * heads // q.shape[-1] if kwargs.get("enable_gqa") else heads
        q, k, v = _split_heads(q, heads), _split_heads(k, key_heads), _split_heads(v, key_heads)
    options = {name: kwargs[name] for name in ("scale", "enable_gqa") if name in kwargs}
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=_broadcast_mask(mask), **options)
    return out if skip_output_reshape else _join_heads(out)


@wrap_attn
def attention_basic(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,
    skip_output_reshape: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """The same written out; *attn_precision* ``torch.float32`` computes the scores in float32."""
    if not skip_reshape:
        q, k, v = (_split_heads(tensor, heads) for tensor in (q, k, v))
    precision = attn_precision or q.dtype
    scores = q.to(precision) @ k.to(precision).transpose(-1, -2) * kwargs.get("scale", q.shape[-1] ** -0.5)
    mask = _broadcast_mask(mask)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.finfo(scores.dtype).max) if mask.dtype == torch.bool else scores + mask
    out = scores.softmax(dim=-1).to(v.dtype) @ v
    return out if skip_output_reshape else _join_heads(out)


# Memory-saving variants are what torch's fused kernels already do; the names are kept for callers.
attention_sub_quad = attention_split = attention_xformers = attention_pytorch
optimized_attention = attention_pytorch
optimized_attention_masked = attention_pytorch

REGISTERED_ATTENTION_FUNCTIONS: dict[str, AttentionFunction] = {
    "pytorch": attention_pytorch,
    "sub_quad": attention_sub_quad,
    "split": attention_split,
}


def register_attention_function(name: str, func: AttentionFunction) -> None:
    """Offer *func* under *name*; a name already taken keeps its function, with a warning."""
    if REGISTERED_ATTENTION_FUNCTIONS.setdefault(name, func) is not func:
        log.warning("the attention function %r is registered already; the new one is ignored", name)


def get_attention_function(name: str, default: Any = ...) -> Any:
    """The function registered under *name* (``optimized`` is the one in use), or *default*.

    Raises ``KeyError`` when there is neither.
    """
    if name == "optimized":
        return optimized_attention
    if name not in REGISTERED_ATTENTION_FUNCTIONS and default is ...:
        raise KeyError(f"no attention function {name!r}; registered: {', '.join(sorted(REGISTERED_ATTENTION_FUNCTIONS))}")
    return REGISTERED_ATTENTION_FUNCTIONS.get(name, default)


def optimized_attention_for_device(device: torch.device, mask: bool = False, small_input: bool = False) -> AttentionFunction:
    """The attention function to use on *device*, for masked or small inputs."""
    return optimized_attention_masked if mask else optimized_attention


class GEGLU(diffusers_activations.GEGLU):
    """A linear layer whose output is one half times the GELU of the other half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C in) to (…, C out)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)


class FeedForward(diffusers_attention.FeedForward):
    """GEGLU, dropout (inactive), linear."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        for layer in self.net:
            x = layer(x)
        return x


class CrossAttention(Attention):
    """Projections around ``optimized_attention``; self-attention without a context."""

    to_q: Any
    to_out: Any

    @property
    def dim_head(self) -> int:
        """Channels per head."""
        return self.to_q.out_features // self.heads

    def forward(  # type: ignore[override]  # ComfyUI's signature, not diffusers'
        self,
        x: torch.Tensor,
        context: torch.Tensor | None = None,
        value: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        transformer_options: Patches | None = None,
    ) -> torch.Tensor:
        """B x N x C attended over *context* (keys; also values unless *value* is given)."""
        context = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context if value is None else value)
        attend = optimized_attention if mask is None else optimized_attention_masked
        masking = {} if mask is None else {"mask": mask}
        return self.to_out(attend(q, k, v, self.heads, attn_precision=None, transformer_options=transformer_options or {}, **masking))


class BasicTransformerBlock(diffusers_attention.BasicTransformerBlock):
    """Self-attention, cross-attention and feed-forward, each with a residual connection and the packs' hooks."""

    attn1: CrossAttention

    @property
    def n_heads(self) -> int:
        """Attention heads."""
        return self.attn1.heads

    @property
    def d_head(self) -> int:
        """Channels per head."""
        return self.attn1.dim_head

    def forward(  # type: ignore[override]  # ComfyUI's signature, not diffusers'
        self, x: torch.Tensor, context: torch.Tensor | None = None, transformer_options: Patches | None = None
    ) -> torch.Tensor:
        """B x N x C; *context* feeds the cross-attention."""
        options = transformer_options or {}
        patches = options.get("patches", {})
        extra = {key: value for key, value in options.items() if key not in ("patches", "patches_replace")}
        extra |= {"n_heads": self.n_heads, "dim_head": self.d_head, "attn_precision": None}
        n = self._attend("attn1", self.norm1(x), None, options, extra)
        x = n + x
        for patch in patches.get("middle_patch", ()):
            x = patch(x, extra)
        n = self._attend("attn2", self.norm2(x), context, options, extra)
        x = n + x
        return x + self.ff(self.norm3(x))

    def _attend(self, name: str, n: torch.Tensor, context: torch.Tensor | None, options: Patches, extra: dict[str, Any]) -> torch.Tensor:
        """One attention with its ``<name>_patch``, ``patches_replace[name]`` and ``<name>_output_patch`` hooks."""
        patches = options.get("patches", {})
        attention = getattr(self, name)
        value = None
        if f"{name}_patch" in patches:
            context = n if context is None else context
            value = context
            for patch in patches[f"{name}_patch"]:
                n, context, value = patch(n, context, value, extra)
        replacement = _replacement(name, options)
        if replacement is None:
            n = attention(n, context=context, value=value, transformer_options=options)
        else:
            context = n if context is None else context
            value = context if value is None else value
            n = replacement(attention.to_q(n), attention.to_k(context), attention.to_v(value), extra)
            n = attention.to_out(n)
        for patch in patches.get(f"{name}_output_patch", ()):
            n = patch(n, extra)
        return n


def _replacement(name: str, options: Patches) -> AttentionFunction | None:
    """The attention replacement for the current block: by (name, number, transformer index) first, else by (name, number)."""
    replacements = options.get("patches_replace", {}).get(name)
    block = options.get("block")
    if not replacements or block is None:
        return None
    exact = (block[0], block[1], options.get("block_index", 0))
    return replacements.get(exact, replacements.get(block))


class SpatialTransformer(Transformer2DModel):
    """Transformer blocks over the pixels of a feature map, with a residual connection around all of them."""

    @property
    def use_linear(self) -> bool:
        """Whether the projections are linear layers over tokens instead of 1x1 convolutions over pixels."""
        return isinstance(self.proj_in, torch.nn.Linear)

    def forward(  # type: ignore[override]  # ComfyUI's signature, not diffusers'
        self, x: torch.Tensor, context: Any = None, transformer_options: dict[str, Any] | None = None
    ) -> torch.Tensor:
        """B x C x height x width; *context* is one tensor, or a list with one per block."""
        options = {} if transformer_options is None else transformer_options
        contexts = context if isinstance(context, list) else [context] * len(self.transformer_blocks)
        options["activations_shape"] = list(x.shape)
        _, _, height, width = x.shape
        tokens = self.norm(x)
        if not self.use_linear:
            tokens = self.proj_in(tokens)
        tokens = tokens.flatten(2).transpose(1, 2).contiguous()
        if self.use_linear:
            tokens = self.proj_in(tokens)
        for index, block in enumerate(self.transformer_blocks):
            options["block_index"] = index
            tokens = block(tokens, context=contexts[index], transformer_options=options)
        if self.use_linear:
            tokens = self.proj_out(tokens)
        out = tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()
        if not self.use_linear:
            out = self.proj_out(out)
        return out + x


def adopt_transformers(module: torch.nn.Module) -> None:
    """Give every diffusers transformer layer below *module* its class of this module, in place; parameter names stay."""
    kinds = {
        Transformer2DModel: SpatialTransformer,
        Attention: CrossAttention,
        diffusers_attention.BasicTransformerBlock: BasicTransformerBlock,
        diffusers_attention.FeedForward: FeedForward,
        diffusers_activations.GEGLU: GEGLU,
    }
    for layer in module.modules():
        kind = kinds.get(type(layer))
        if kind is None:
            continue
        layer.__class__ = kind
        if isinstance(layer, CrossAttention):
            layer.to_out = torch.nn.Sequential(*layer.to_out)
