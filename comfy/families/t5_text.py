"""A T5 or UMT5 encoder built from transformers' layers. It computes in float32, whatever its weights are kept in."""

from collections.abc import Mapping
from typing import Any

import torch

import comfy.ops
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.t5_text_config import TABLES, T5TextConfig
from comfy.families.weight_source import WeightSource

COMPUTED_IN = (torch.float32, torch.float16, torch.bfloat16)


class T5Transformer(torch.nn.Module):
    """Token embeddings to hidden states. Parameters are on the meta device until :meth:`load_weights`.

    ``shared`` and ``encoder`` carry transformers' names, which are also ComfyUI's weight names.
    """

    shared: Any
    encoder: Any

    def __init__(self, config: T5TextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.num_layers = config.num_layers
        self.dtype = dtype
        built = _encoder(config)
        self.shared = built.shared
        self.encoder = torch.nn.Module()
        self.encoder.block = built.encoder.block
        self.encoder.final_layer_norm = built.encoder.final_layer_norm
        _keep_dtypes(self)
        comfy.ops.adopt_layers(self, operations)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """The token embedding layer."""
        return self.shared

    def forward(
        self,
        embeds: torch.Tensor,
        num_tokens: list[int],
        attention_mask: torch.Tensor | None = None,
        intermediate_output: int | str | list[int] | None = None,
        final_layer_norm_intermediate: bool = True,
        embeds_info: Any = (),
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        """Run the layers: (last hidden state, chosen hidden state or None, None, None), float32; there is no pooled output.

        *embeds*: B x tokens x width, float32. *attention_mask*: B x tokens, 1 where a token may be attended to (None: everywhere).
        *intermediate_output*: the number of a layer (negative ones count from the end). Raises ``ValueError`` for several layers.
        """
        if isinstance(intermediate_output, (str, list)):
            raise ValueError(f"a T5 encoder gives one hidden layer, not {intermediate_output!r}; ask for its number")
        wanted = None if intermediate_output is None else intermediate_output % self.num_layers
        x = embeds if self.dtype in COMPUTED_IN else embeds.nan_to_num()  # fp8 tables hold no number for some rare tokens
        mask = None if attention_mask is None else _additive(attention_mask, x)
        chosen: torch.Tensor | None = None
        shared_bias: dict[str, torch.Tensor] = {}
        for number, block in enumerate(self.encoder.block):
            if self.config.bias_per_layer:
                x = block(x, attention_mask=mask)
            else:
                x, shared_bias["position_bias"], *_ = block(x, attention_mask=mask, **shared_bias)
            if number == wanted:
                chosen = x
        if chosen is not None and final_layer_norm_intermediate:
            chosen = self.encoder.final_layer_norm(chosen)
        return self.encoder.final_layer_norm(x), chosen, None, None

    def load_weights(self, source: WeightSource, dtype: torch.dtype, what: str) -> set[str]:
        """Take the weights from *source* (no prefix), floating-point ones in *dtype*; returns the names of the tensors used.

        *what* names the component in errors. Raises ``ModelFileError``.
        """
        part = plain_weights(source)
        with naming_file(source.name, what):
            plan = plan_conversion(part.shapes(), _named)
        return set(load_parameters(self, part, plan, dtype, what).keys())


def _encoder(config: T5TextConfig) -> Any:
    """transformers' encoder on the meta device."""
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    kinds: tuple[Any, Any] = (UMT5Config, UMT5EncoderModel) if config.bias_per_layer else (T5Config, T5EncoderModel)
    arguments = kinds[0](**config.transformers_arguments(), dropout_rate=0.0, attn_implementation="sdpa")
    with torch.device("meta"):
        return kinds[1](arguments).eval().requires_grad_(False)


def _named(tensors: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The published tensors with the embedding table under the name that the module has for it."""
    table = next((tensors[name] for name in TABLES if name in tensors), None)
    return tensors if table is None else {**tensors, TABLES[0]: table}


def _additive(mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """B x tokens of ones and zeros as B x 1 x 1 x tokens of what is added to the scores."""
    hidden = (mask == 0)[:, None, None, :]
    return torch.zeros(hidden.shape, dtype=x.dtype, device=x.device).masked_fill(hidden, -torch.finfo(x.dtype).max)


class _ScaledNorm(torch.nn.Module):
    """transformers' norm, in the input's dtype instead of the weight's."""

    weight: torch.Tensor
    variance_epsilon: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, width), divided by the root of the mean square and scaled."""
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return x * scale * comfy.ops.cast_to_input(self.weight, x, copy=False)


class _Dense(torch.nn.Module):
    """transformers' feed-forward layer, which does not round to the weight's dtype in between."""

    wi: Any
    wo: Any
    act: Any

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, width) to (…, width)."""
        return self.wo(self.act(self.wi(x)))


class _GatedDense(_Dense):
    """The same with a gate."""

    wi_0: Any
    wi_1: Any

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, width) to (…, width)."""
        return self.wo(self.act(self.wi_0(x)) * self.wi_1(x))


def _keep_dtypes(module: torch.nn.Module) -> None:
    """Turn the layers that cast to their weights' dtype into ours, in place."""
    for layer in module.modules():
        if hasattr(layer, "variance_epsilon"):
            layer.__class__ = _ScaledNorm
        elif hasattr(layer, "wi_0"):
            layer.__class__ = _GatedDense
        elif hasattr(layer, "wi"):
            layer.__class__ = _Dense
        elif hasattr(layer, "relative_attention_bias"):
            biases: Any = layer.relative_attention_bias
            biases.register_forward_hook(_in_float32)


def _in_float32(layer: torch.nn.Module, inputs: Any, biases: torch.Tensor) -> torch.Tensor:
    """The biases of positions as attention takes them: in the dtype that queries and keys have."""
    return biases.float()
