"""A CLIP text model built from transformers' layers. It can return any hidden layer and both pooled outputs."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING, convert_open_clip_checkpoint
from transformers import CLIPTextConfig as TransformersConfig
from transformers import CLIPTextModelWithProjection

import comfy.ops
from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]
_OPEN_CLIP_MARK = "transformer.resblocks.0.ln_1.weight"


class ClipTextTransformer(torch.nn.Module):
    """Token embeddings to hidden states. Parameters are on the meta device until :func:`load_clip_text`.

    ``text_model`` and ``text_projection`` (None without one) carry transformers' names, which are also ComfyUI's weight names.
    """

    text_model: Any
    text_projection: Any

    def __init__(self, config: ClipTextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.num_layers = config.num_layers
        arguments = TransformersConfig(**{**config.transformers_arguments(), "attn_implementation": "sdpa"})
        with torch.device("meta"):
            built = CLIPTextModelWithProjection(arguments).eval().requires_grad_(False)
        self.text_model = torch.nn.Module()
        for name in ("embeddings", "encoder", "final_layer_norm"):
            setattr(self.text_model, name, getattr(built.text_model, name))
        self.text_model.embeddings.position_ids = torch.arange(config.positions)[None]
        self.text_projection = built.text_projection if config.projection else None
        comfy.ops.adopt_layers(self, operations)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """The token embedding layer."""
        return self.text_model.embeddings.token_embedding

    def forward(
        self,
        embeds: torch.Tensor,
        num_tokens: list[int],
        attention_mask: torch.Tensor | None = None,
        intermediate_output: int | str | list[int] | None = None,
        final_layer_norm_intermediate: bool = True,
        embeds_info: Any = (),
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
        """Run the layers: (last hidden state, chosen hidden state or None, projected pooled output or None, pooled output), float32.

        *embeds*: B x tokens x width, float32. *num_tokens*: for each row the number of tokens up to and including the end token, where
        the pooled output is taken. *attention_mask*: B x tokens, 1 where a token may be attended to. *intermediate_output*: the number of
        a layer (negative ones count from the end), or "all" or a list of numbers, whose states are stacked along dimension 1. Raises
        ``ValueError`` for more tokens than the model has positions.
        """
        x = embeds + self._positions(embeds)
        mask = self._mask(x, attention_mask)
        wanted = self._wanted(intermediate_output)
        taken = []
        for number, layer in enumerate(self.text_model.encoder.layers):
            x = layer(x, mask)
            if number in wanted:
                taken.append(x)
        last = self.text_model.final_layer_norm(x)
        chosen = None
        if taken:
            chosen = taken[0] if isinstance(intermediate_output, int) else torch.stack(taken, dim=1)
            if final_layer_norm_intermediate:
                chosen = self.text_model.final_layer_norm(chosen)
        rows = torch.arange(len(last), device=last.device)
        pooled = last[rows, torch.tensor(num_tokens, device=last.device) - 1]
        return last, chosen, None if self.text_projection is None else self.text_projection(pooled), pooled

    def load_weights(self, source: WeightSource, dtype: torch.dtype, what: str) -> set[str]:
        """Take the weights from *source* (no prefix), floating-point ones in *dtype*; returns the names of the tensors used."""
        return load_clip_text(self, source, dtype, what)

    def _positions(self, embeds: torch.Tensor) -> torch.Tensor:
        positions = self.text_model.embeddings.position_embedding
        if embeds.shape[1] > positions.num_embeddings:
            raise ValueError(f"a chunk of {embeds.shape[1]} tokens is longer than the text model's {positions.num_embeddings} positions")
        return positions(torch.arange(embeds.shape[1], device=embeds.device)).to(embeds)

    def _wanted(self, intermediate_output: int | str | list[int] | None) -> set[int]:
        if intermediate_output is None:
            return set()
        if intermediate_output == "all":
            return set(range(self.num_layers))
        numbers: list[Any] = intermediate_output if isinstance(intermediate_output, list) else [intermediate_output]
        return {number % self.num_layers for number in numbers}

    @staticmethod
    def _mask(x: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Additive causal mask (1 or B) x 1 x tokens x tokens, also hiding what *attention_mask* hides."""
        lowest = -torch.finfo(x.dtype).max
        tokens = x.shape[1]
        causal = torch.full((tokens, tokens), lowest, dtype=x.dtype, device=x.device).triu_(1)[None, None]
        if attention_mask is None:
            return causal
        hidden = (attention_mask[:, None, None, :] == 0).expand(-1, 1, tokens, tokens)
        return causal.expand(len(x), 1, tokens, tokens).masked_fill(hidden, lowest)


def plan_clip_text(shapes: Mapping[str, Shape], width: int) -> ConversionPlan:
    """Plan which file tensor (no prefix) becomes which parameter; *shapes* are in transformers' or open_clip's names.

    The plan cuts open_clip's fused ``in_proj`` into three views.
    """
    if _OPEN_CLIP_MARK in shapes:
        return plan_conversion(shapes, lambda tensors: _from_open_clip(tensors, width))
    return plan_conversion(shapes, lambda tensors: tensors)


def _from_open_clip(tensors: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    class _Config:
        hidden_size = width

    class _Model:
        config = _Config

    mapping: Any = DIFFUSERS_TO_LDM_MAPPING["openclip"]
    named = {key: tensor for key, tensor in tensors.items() if key in mapping["layers"].values() or key.startswith("transformer.")}
    return convert_open_clip_checkpoint(_Model, named, prefix="")


def load_clip_text(model: ClipTextTransformer, source: WeightSource, dtype: torch.dtype, what: str) -> set[str]:
    """Give *model* its weights from *source* (no prefix), floating-point ones in *dtype*; returns the names of the tensors used.

    *what* names the component in errors. Raises ``ModelFileError``.
    """
    part = plain_weights(source)
    with naming_file(source.name, what):
        plan = plan_clip_text(part.shapes(), model.config.hidden_size)
    return set(load_parameters(model, part, plan, dtype, what).keys())
