"""The attention functions in use, and the transformer layers of Stable Diffusion's UNet with the hooks that node packs use.

Constructors, attributes and the paths of parameters are ComfyUI's. Every layer looks up ``optimized_attention`` in this module when it
is called, so a pack may replace that name. Shapes: B batch, N tokens, C channels.
"""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.cli_args import args
from comfy.ldm.modules.attention_functions import AttentionFunction, attention_basic, attention_pytorch, wrap_attn
from comfy.ldm.modules.attention_in_parts import attention_split, attention_sub_quad
from comfy.ldm.modules.attention_packages import PACKAGED, attention3_sage, attention_comfy_kitchen_int8, attention_flash, attention_sage
from comfy.placeholders import placeholders
from comfy.residency.attention_asked import asked_attention

log = logging.getLogger(__name__)

__all__ = [
    "GEGLU",
    "REGISTERED_ATTENTION_FUNCTIONS",
    "AttentionFunction",
    "BasicTransformerBlock",
    "CrossAttention",
    "FeedForward",
    "SpatialTransformer",
    "attention3_sage",
    "attention_basic",
    "attention_comfy_kitchen_int8",
    "attention_flash",
    "attention_pytorch",
    "attention_sage",
    "attention_split",
    "attention_sub_quad",
    "attention_xformers",
    "default",
    "exists",
    "get_attention_function",
    "optimized_attention",
    "optimized_attention_for_device",
    "optimized_attention_masked",
    "register_attention_function",
    "wrap_attn",
]

Patches = Mapping[str, Any]
ops = comfy.ops.disable_weight_init


def exists(val: Any) -> bool:
    """Whether *val* is not None."""
    return val is not None


def default(val: Any, d: Any) -> Any:
    """*val*, or *d* if it is None."""
    return d if val is None else val


attention_xformers = attention_pytorch  # the package is not used; the name is kept for callers

REGISTERED_ATTENTION_FUNCTIONS: dict[str, AttentionFunction] = {
    "pytorch": attention_pytorch,
    "sub_quad": attention_sub_quad,
    "split": attention_split,
}


class AttentionInUse:
    """Which function computes attention in this process; None before it was chosen."""

    function: AttentionFunction | None = None


_in_use = AttentionInUse()


def chosen_attention() -> AttentionFunction:
    """The function that flags ask for, else torch's; chosen, and said, at the first call of the process."""
    if _in_use.function is None:
        _in_use.function = _choice()
    return _in_use.function


def _choice() -> AttentionFunction:
    name = asked_attention(args) or "pytorch"
    function = get_attention_function(name, None)
    if function is None:
        log.warning("The attention %r that a flag asks for is not on this machine; torch's is used", name)
        name, function = "pytorch", attention_pytorch
    order = "; cards try flash, cuDNN, memory-saving and plain kernels in this order" if function is attention_pytorch else ""
    log.info("Attention: %s%s", name, order)
    found: AttentionFunction = function
    return found


def optimized_attention(*args: Any, **kwargs: Any) -> torch.Tensor:
    """The attention in use, with the arguments of :func:`attention_pytorch`."""
    return chosen_attention()(*args, **kwargs)


optimized_attention_masked = optimized_attention


def register_attention_function(name: str, func: AttentionFunction) -> None:
    """Offer *func* under *name*; a name already taken keeps its function, with a warning."""
    if REGISTERED_ATTENTION_FUNCTIONS.setdefault(name, func) is not func:
        log.warning("the attention function %r is registered already; the new one is ignored", name)


def get_attention_function(name: str, default: Any = ...) -> Any:
    """The function registered under *name* (``optimized`` is the one in use), or *default*. Those of packages are known where these are.

    Raises ``KeyError`` when there is neither.
    """
    if name == "optimized":
        return optimized_attention
    if name not in REGISTERED_ATTENTION_FUNCTIONS and name in PACKAGED and PACKAGED[name][1]():
        REGISTERED_ATTENTION_FUNCTIONS[name] = PACKAGED[name][0]
    if name not in REGISTERED_ATTENTION_FUNCTIONS and default is ...:
        raise KeyError(f"no attention function {name!r}; registered: {', '.join(sorted(REGISTERED_ATTENTION_FUNCTIONS))}")
    return REGISTERED_ATTENTION_FUNCTIONS.get(name, default)


def optimized_attention_for_device(device: torch.device, mask: bool = False, small_input: bool = False) -> AttentionFunction:
    """The attention function to use on *device*: torch's for small inputs and on the CPU, else the one in use."""
    if small_input or torch.device(device).type == "cpu":
        return attention_pytorch
    return optimized_attention_masked if mask else optimized_attention


class GEGLU(torch.nn.Module):
    """A linear layer whose output is one half times the GELU of the other half."""

    def __init__(self, dim_in: int, dim_out: int, dtype: Any = None, device: Any = None, operations: Any = ops) -> None:
        super().__init__()
        self.proj = operations.Linear(dim_in, dim_out * 2, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C in) to (…, C out)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)


class FeedForward(torch.nn.Module):
    """A wider layer with GELU (gated if *glu*), dropout (inactive), linear."""

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        mult: float = 4,
        glu: bool = False,
        dropout: float = 0.0,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        inner, kept = int(dim * mult), {"dtype": dtype, "device": device}
        widening = (
            GEGLU(dim, inner, operations=operations, **kept)
            if glu
            else torch.nn.Sequential(operations.Linear(dim, inner, **kept), torch.nn.GELU())
        )
        self.net = torch.nn.Sequential(widening, torch.nn.Dropout(dropout), operations.Linear(inner, default(dim_out, dim), **kept))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C out)."""
        return self.net(x)


class CrossAttention(torch.nn.Module):
    """Projections around ``optimized_attention``; self-attention without a context."""

    def __init__(
        self,
        query_dim: int,
        context_dim: int | None = None,
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
        attn_precision: torch.dtype | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        inner, kept = dim_head * heads, {"dtype": dtype, "device": device}
        self.heads, self.dim_head, self.attn_precision = heads, dim_head, attn_precision
        self.to_q = operations.Linear(query_dim, inner, bias=False, **kept)
        self.to_k = operations.Linear(default(context_dim, query_dim), inner, bias=False, **kept)
        self.to_v = operations.Linear(default(context_dim, query_dim), inner, bias=False, **kept)
        self.to_out = torch.nn.Sequential(operations.Linear(inner, query_dim, **kept), torch.nn.Dropout(dropout))

    def forward(
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
        options = transformer_options or {}
        return self.to_out(attend(q, k, v, self.heads, attn_precision=self.attn_precision, transformer_options=options, **masking))


class BasicTransformerBlock(torch.nn.Module):
    """Self-attention, cross-attention and feed-forward, each with a residual connection and the packs' hooks.

    *ff_in* puts a feed-forward layer first. With *inner_dim* other than *dim* it and the last one change the width, without residuals.
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        d_head: int,
        dropout: float = 0.0,
        context_dim: int | None = None,
        gated_ff: bool = True,
        checkpoint: bool = True,
        ff_in: bool = False,
        inner_dim: int | None = None,
        disable_self_attn: bool = False,
        disable_temporal_crossattention: bool = False,
        switch_temporal_ca_to_sa: bool = False,
        attn_precision: torch.dtype | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        if disable_temporal_crossattention and switch_temporal_ca_to_sa:
            raise ValueError("a block without cross-attention cannot use it as self-attention; set one of the two")
        width, kept = default(inner_dim, dim), {"dtype": dtype, "device": device, "operations": operations}
        self.n_heads, self.d_head, self.attn_precision = n_heads, d_head, attn_precision
        self.is_res, self.disable_self_attn, self.switch_temporal_ca_to_sa = width == dim, disable_self_attn, switch_temporal_ca_to_sa
        attention = {"heads": n_heads, "dim_head": d_head, "dropout": dropout, "attn_precision": attn_precision, **kept}
        self.ff_in: FeedForward | None = None
        if ff_in or inner_dim is not None:
            self.norm_in = operations.LayerNorm(dim, dtype=dtype, device=device)
            self.ff_in = FeedForward(dim, dim_out=width, dropout=dropout, glu=gated_ff, **kept)
        self.attn1 = CrossAttention(width, context_dim if disable_self_attn else None, **attention)
        self.ff = FeedForward(width, dim_out=dim, dropout=dropout, glu=gated_ff, **kept)
        self.attn2: CrossAttention | None = None
        if not disable_temporal_crossattention:
            self.attn2 = CrossAttention(width, None if switch_temporal_ca_to_sa else context_dim, **attention)
            self.norm2 = operations.LayerNorm(width, dtype=dtype, device=device)
        self.norm1 = operations.LayerNorm(width, dtype=dtype, device=device)
        self.norm3 = operations.LayerNorm(width, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None, transformer_options: Patches | None = None) -> torch.Tensor:
        """B x N x C; *context* feeds the cross-attention."""
        options = transformer_options or {}
        patches = options.get("patches", {})
        extra = {key: value for key, value in options.items() if key not in ("patches", "patches_replace")}
        extra |= {"n_heads": self.n_heads, "dim_head": self.d_head, "attn_precision": self.attn_precision}
        if self.ff_in is not None:
            widened = self.ff_in(self.norm_in(x))
            x = widened + x if self.is_res else widened
        n = self._attend("attn1", self.norm1(x), context if self.disable_self_attn else None, options, extra)
        x = n + x
        for patch in patches.get("middle_patch", ()):
            x = patch(x, extra)
        if self.attn2 is not None:
            n = self.norm2(x)
            n = self._attend("attn2", n, n if self.switch_temporal_ca_to_sa else context, options, extra)
            x = n + x
        fed = self.ff(self.norm3(x))
        return x + fed if self.is_res else fed

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


class SpatialTransformer(torch.nn.Module):
    """Transformer blocks over the pixels of a feature map, with a residual connection around all of them.

    *use_linear*: the projections are linear layers over tokens instead of 1x1 convolutions over pixels.
    """

    def __init__(
        self,
        in_channels: int,
        n_heads: int,
        d_head: int,
        depth: int = 1,
        dropout: float = 0.0,
        context_dim: Any = None,
        disable_self_attn: bool = False,
        use_linear: bool = False,
        use_checkpoint: bool = True,
        attn_precision: torch.dtype | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = ops,
    ) -> None:
        super().__init__()
        inner, kept = n_heads * d_head, {"dtype": dtype, "device": device}
        widths = context_dim if isinstance(context_dim, list) else [context_dim] * depth
        self.in_channels, self.use_linear = in_channels, use_linear
        self.norm = operations.GroupNorm(num_groups=32, num_channels=in_channels, eps=1e-6, affine=True, **kept)
        project = operations.Linear if use_linear else functools.partial(operations.Conv2d, kernel_size=1)
        self.proj_in = project(in_channels, inner, **kept)
        block: dict[str, Any] = {"dropout": dropout, "disable_self_attn": disable_self_attn, "attn_precision": attn_precision, **kept}
        self.transformer_blocks = torch.nn.ModuleList(
            BasicTransformerBlock(inner, n_heads, d_head, context_dim=width, operations=operations, **block) for width in widths
        )
        self.proj_out = project(inner, in_channels, **kept)

    def forward(self, x: torch.Tensor, context: Any = None, transformer_options: dict[str, Any] | None = None) -> torch.Tensor:
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


_placeholder, __dir__ = placeholders(__name__, "video models", "SpatialVideoTransformer=comfy.ldm.modules.video_attention")
AVAILABLE = {
    "SAGE_ATTENTION_IS_AVAILABLE": "sage",
    "SAGE_ATTENTION3_IS_AVAILABLE": "sage3",
    "FLASH_ATTENTION_IS_AVAILABLE": "flash",
    "COMFY_KITCHEN_INT8_ATTENTION_IS_AVAILABLE": "comfy_kitchen_int8",
}


def __getattr__(name: str) -> Any:
    """Whether a package's attention is here, found out when it is asked for; names of models that are not."""
    return PACKAGED[AVAILABLE[name]][1]() if name in AVAILABLE else _placeholder(name)
