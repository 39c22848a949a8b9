"""The layers that hold weights: plain torch layers that can also fetch, cast and transform their weights at each call.

A layer computes with its own parameters unless ``comfy_cast_weights`` is set or ``weight_function``/``bias_function`` hold
callables: then each call goes through ``forward_comfy_cast_weights``, which brings the weights to the input's device and dtype and
applies the functions to the copy. That is how a weight kept on the host, or in another dtype, is used without changing it. Node packs
override that method, and replace it in these classes. A linear layer whose weight is quantised always goes through it
(:mod:`comfy.quantisation.linear`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.families import few_positions
from comfy.quantisation import linear as quantised_linear
from comfy.quantisation.weights import LayerSettings, is_quantised
from comfy.residency.fetching import WeightFetcher

WeightFunction = Callable[[torch.Tensor], torch.Tensor]
SMALL_ATTENTION = 1 << 17  # elements of queries; for fewer, choosing a kernel costs more than it saves


def scaled_dot_product_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """torch's function of this name (B x H x N x D). On cards flash kernels are tried first, then cuDNN's, then those that save memory.

    Fewer heads of keys beside a mask, which no fused kernel of a card takes, are repeated there.
    """
    if q.device.type != "cuda":
        return F.scaled_dot_product_attention(q, k, v, *args, **kwargs)
    mask = args[0] if args else kwargs.get("attn_mask")
    if kwargs.get("enable_gqa") and mask is not None:
        times = q.shape[-3] // k.shape[-3]
        k, v = k.repeat_interleave(times, -3), v.repeat_interleave(times, -3)
        kwargs["enable_gqa"] = False
    if q.numel() < SMALL_ATTENTION:
        return F.scaled_dot_product_attention(q, k, v, *args, **kwargs)
    backends = torch.nn.attention.SDPBackend
    order = [backends.FLASH_ATTENTION, backends.CUDNN_ATTENTION, backends.EFFICIENT_ATTENTION, backends.MATH]
    with torch.nn.attention.sdpa_kernel(order, set_priority=True):
        return F.scaled_dot_product_attention(q, k, v, *args, **kwargs)


class CastLayer(Protocol):
    """A layer whose weights are prepared at each call."""

    weight: Any
    bias: Any
    weight_function: Sequence[WeightFunction]
    bias_function: Sequence[WeightFunction]
    fetcher: WeightFetcher | None


def cast_to(
    weight: torch.Tensor,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    non_blocking: bool = False,
    copy: bool = False,
) -> torch.Tensor:
    """*weight* on *device* in *dtype*; the same tensor when nothing changes and *copy* is not asked for."""
    return weight.to(device=device, dtype=dtype, non_blocking=non_blocking, copy=copy)


def cast_to_input(weight: torch.Tensor, input: torch.Tensor, non_blocking: bool = False, copy: bool = True) -> torch.Tensor:
    """*weight* on *input*'s device in its dtype."""
    return cast_to(weight, input.dtype, input.device, non_blocking, copy)


def cast_bias_weight(
    s: CastLayer,
    input: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    bias_dtype: torch.dtype | None = None,
    offloadable: bool = False,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Layer *s*'s weight and bias (None if it has none) where and as *input*, or *device* and *dtype*, need them.

    Its weight and bias functions are applied to the copies. With *offloadable* there is a third value, for :func:`uncast_bias_weight`.
    """
    if input is not None:
        dtype = input.dtype if dtype is None else dtype
        device = input.device if device is None else device
    weight = _prepared(s.weight, dtype, device, s.weight_function)
    bias = s.bias
    if bias is not None:
        bias = _prepared(bias, dtype if bias_dtype is None else bias_dtype, device, s.bias_function)
    return (weight, bias, None) if offloadable else (weight, bias)


def _operands(layer: CastLayer, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """*layer*'s weight and bias for one product with *input*: fetched ahead if it streams, else as :func:`cast_bias_weight` gives them."""
    fetched = _fetched(layer, input)
    if fetched is None:
        weight, bias = cast_bias_weight(layer, input)
        return weight, bias
    bias = fetched.get("bias")
    prepared_bias = None if bias is None else _prepared(bias, input.dtype, None, layer.bias_function)
    return _prepared(fetched["weight"], input.dtype, None, layer.weight_function), prepared_bias


def _fetched(layer: CastLayer, input: torch.Tensor) -> Mapping[str, torch.Tensor] | None:
    """*layer*'s parameters where *input* is, good until other layers are called; None if nobody fetches them ahead.

    Gradients would need them for longer, and a compiled graph has no host that sends for them.
    """
    fetcher = layer.fetcher
    if fetcher is None or fetcher.torch_device != input.device or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return fetcher.fetch(layer)


def uncast_bias_weight(s: Any, weight: Any, bias: Any, offload_stream: Any) -> None:
    """Nothing: prepared weights are plain copies here, which nobody has to be told about when they are no longer used."""


def linear_input_act(linear: torch.nn.Module, x: torch.Tensor, input_act: str) -> torch.Tensor:
    """``linear(act(x))`` for the activation named *input_act*: "silu", "gelu", "gelu_tanh" or "swiglu", where gates come first.

    Raises ``KeyError`` for other names.
    """
    activations: dict[str, WeightFunction] = {
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu_tanh": lambda value: F.gelu(value, approximate="tanh"),
        "swiglu": _gated,
    }
    return linear(activations[input_act](x))


def _gated(x: torch.Tensor) -> torch.Tensor:
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


def _prepared(
    parameter: torch.Tensor, dtype: torch.dtype | None, device: torch.device | None, functions: Sequence[WeightFunction]
) -> torch.Tensor:
    if is_quantised(parameter):
        return quantised_linear.prepared_weight(parameter, dtype, device, functions)
    if device is not None and device != parameter.device and device.type == "cuda":
        parameter = parameter.to(device, non_blocking=True)  # as it is: its own dtype may be smaller, and the host does not convert
    value = parameter.to(device=device, dtype=dtype, copy=bool(functions))
    for function in functions:
        value = function(value)
    return value


class CastWeightBiasOp(torch.nn.Module):
    """What every layer here adds to torch's: whether and how its weights are prepared per call."""

    comfy_cast_weights = False
    weight_function: Sequence[WeightFunction] = ()
    bias_function: Sequence[WeightFunction] = ()
    fetcher: WeightFetcher | None = None  # of a layer that stays on the host: brings its weights ahead of a call

    def prepares_weights(self) -> bool:
        """Whether a call works on prepared copies instead of the parameters."""
        return bool(self.comfy_cast_weights or self.weight_function or self.bias_function)

    def reset_parameters(self) -> None:
        """Nothing: weights are assigned after construction."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """torch's result, from the parameters or from prepared copies."""
        if self.prepares_weights():
            return self.forward_comfy_cast_weights(*args, **kwargs)
        return super().forward(*args, **kwargs)

    def forward_comfy_cast_weights(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The result from prepared copies of the weights."""
        raise NotImplementedError(f"{type(self).__name__} must define forward_comfy_cast_weights()")


class CastConvolution(CastWeightBiasOp):
    """What all convolutions share."""

    _conv_forward: Callable[..., torch.Tensor]

    def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor:
        """Batch x in x positions to batch x out x positions."""
        return self._conv_forward(input, *_operands(self, input))


class disable_weight_init:  # noqa: N801 - the name node packs import
    """Layers that leave their parameters uninitialised."""

    class Linear(CastWeightBiasOp, torch.nn.Linear):
        """``torch.nn.Linear``. ``quantised`` says what a file tells of a layer whose weight is quantised, None of any other."""

        quantised: LayerSettings | None = None
        few_bits = False  # whether products with a quantised weight, or a plain one in fp8, are made in few bits

        def prepares_weights(self) -> bool:
            """Always with a quantised weight."""
            return self.quantised is not None or self.few_bits or super().prepares_weights()

        def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor:
            """(…, in) to (…, out)."""
            if self.quantised is not None:
                return quantised_linear.linear(self, input, *self._unprepared(input))
            if self.few_bits and not self.weight_function and not self.bias_function:
                return quantised_linear.plain_fp8_linear(self, input, *self._unprepared(input))
            return F.linear(input, *_operands(self, input))

        def _unprepared(self, input: torch.Tensor) -> tuple[torch.Tensor, Callable[[], torch.Tensor | None]]:
            """The weight as it is, perhaps fetched ahead, and what prepares the bias for *input*."""
            found = _fetched(self, input) or {"weight": self.weight, "bias": self.bias}
            bias = found.get("bias")
            return found["weight"], lambda: None if bias is None else _prepared(bias, input.dtype, input.device, self.bias_function)

    class Conv1d(CastConvolution, torch.nn.Conv1d):
        """``torch.nn.Conv1d``."""

    class Conv2d(CastConvolution, torch.nn.Conv2d):
        """``torch.nn.Conv2d``."""

        def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            if few_positions.suits_product(self, input, weight):
                return few_positions.convolve(self, input, weight, bias)
            return super()._conv_forward(input, weight, bias)

    class Conv3d(CastConvolution, torch.nn.Conv3d):
        """``torch.nn.Conv3d``."""

    class ConvTranspose1d(CastWeightBiasOp, torch.nn.ConvTranspose1d):
        """``torch.nn.ConvTranspose1d``."""

        def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor:
            """Batch x in x positions to batch x out x positions."""
            weight, bias = _operands(self, input)
            padding: Any = self.padding
            return F.conv_transpose1d(input, weight, bias, self.stride, padding, self.output_padding, self.groups, self.dilation)

    class ConvTranspose2d(CastWeightBiasOp, torch.nn.ConvTranspose2d):
        """``torch.nn.ConvTranspose2d``."""

        def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor:
            """Batch x in x positions to batch x out x positions."""
            weight, bias = _operands(self, input)
            padding: Any = self.padding
            return F.conv_transpose2d(input, weight, bias, self.stride, padding, self.output_padding, self.groups, self.dilation)

    class GroupNorm(CastWeightBiasOp, torch.nn.GroupNorm):
        """``torch.nn.GroupNorm``."""

        def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor:
            """The input, normalised per group."""
            weight, bias = _operands(self, input)
            return F.group_norm(input, self.num_groups, weight, bias, self.eps)

    class LayerNorm(CastWeightBiasOp, torch.nn.LayerNorm):
        """``torch.nn.LayerNorm``."""

        def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor:
            """The input, normalised over its last dimensions."""
            weight, bias = (None, None) if self.weight is None else _operands(self, input)
            return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)

    class RMSNorm(CastWeightBiasOp, torch.nn.RMSNorm):
        """``torch.nn.RMSNorm``."""

        bias = None

        def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor:
            """The input, divided by the root mean square over its last dimensions."""
            weight = None if self.weight is None else _operands(self, input)[0]
            return F.rms_norm(input, self.normalized_shape, weight, self.eps)

    class Embedding(CastWeightBiasOp, torch.nn.Embedding):
        """``torch.nn.Embedding``."""

        bias = None

        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            """Rows for indices, in *out_dtype* (None: the weight's); gathered before they are cast."""
            if self.prepares_weights():
                return self.forward_comfy_cast_weights(*args, **kwargs)
            return self._rows(self.weight, *args, **kwargs)

        def forward_comfy_cast_weights(self, input: torch.Tensor, out_dtype: torch.dtype | None = None) -> torch.Tensor:
            """The same, from a prepared copy of the weight."""
            weight, _ = cast_bias_weight(self, device=input.device, dtype=self.weight.dtype)
            return self._rows(weight, input, out_dtype)

        def _rows(self, weight: torch.Tensor, input: torch.Tensor, out_dtype: torch.dtype | None = None) -> torch.Tensor:
            rows = F.embedding(input, weight, self.padding_idx)
            return rows if out_dtype is None else rows.to(out_dtype)

    @classmethod
    def conv_nd(cls, dims: int, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """A convolution over 1, 2 or 3 dimensions. Raises ``ValueError`` for another number."""
        kinds = {1: cls.Conv1d, 2: cls.Conv2d, 3: cls.Conv3d}
        if dims not in kinds:
            raise ValueError(f"no convolution over {dims} dimensions")
        return kinds[dims](*args, **kwargs)


class manual_cast(disable_weight_init):  # noqa: N801 - the name node packs import
    """The same layers, always casting their weights to the input's dtype and device."""

    class Linear(disable_weight_init.Linear):
        """Casting ``Linear``."""

        comfy_cast_weights = True

    class Conv1d(disable_weight_init.Conv1d):
        """Casting ``Conv1d``."""

        comfy_cast_weights = True

    class Conv2d(disable_weight_init.Conv2d):
        """Casting ``Conv2d``."""

        comfy_cast_weights = True

    class Conv3d(disable_weight_init.Conv3d):
        """Casting ``Conv3d``."""

        comfy_cast_weights = True

    class ConvTranspose1d(disable_weight_init.ConvTranspose1d):
        """Casting ``ConvTranspose1d``."""

        comfy_cast_weights = True

    class ConvTranspose2d(disable_weight_init.ConvTranspose2d):
        """Casting ``ConvTranspose2d``."""

        comfy_cast_weights = True

    class GroupNorm(disable_weight_init.GroupNorm):
        """Casting ``GroupNorm``."""

        comfy_cast_weights = True

    class LayerNorm(disable_weight_init.LayerNorm):
        """Casting ``LayerNorm``."""

        comfy_cast_weights = True

    class RMSNorm(disable_weight_init.RMSNorm):
        """Casting ``RMSNorm``."""

        comfy_cast_weights = True

    class Embedding(disable_weight_init.Embedding):
        """Casting ``Embedding``."""

        comfy_cast_weights = True


def pick_operations(weight_dtype: torch.dtype | None, compute_dtype: torch.dtype | None, **_: Any) -> type[disable_weight_init]:
    """The layers for weights kept in one dtype and computed in another (None: the same)."""
    return disable_weight_init if compute_dtype is None or weight_dtype == compute_dtype else manual_cast


_NAMES = ("Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "GroupNorm", "LayerNorm", "RMSNorm", "Embedding")
_LAYERS = {getattr(torch.nn, name): name for name in _NAMES}


def adopt_layers(module: torch.nn.Module, operations: type[disable_weight_init] = disable_weight_init) -> None:
    """Turn every plain torch layer below *module* into its class of *operations*, in place; parameters and names stay.

    Modules that diffusers and transformers built get ComfyUI's layer behaviour this way. Layers that are already of this
    module's kinds change between casting and not casting.
    """
    for layer in module.modules():
        name = _LAYERS.get(type(layer)) or (type(layer).__name__ if isinstance(layer, CastWeightBiasOp) else None)
        if name is not None and isinstance(layer, getattr(torch.nn, name)):
            layer.__class__ = getattr(operations, name)
