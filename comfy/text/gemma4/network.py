"""Gemma 4 as a text encoder, built from transformers' layers: most look back over a window, the last ones attend to what earlier ones made.

Gemma Team, "Gemma 4" (2026), as transformers has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ops
from comfy.families.published_weights import parameters_from_buffers
from comfy.text.gemma4 import senses
from comfy.text.gemma4.sizes import FAR, LARGE, NEAR, SCORE_LIMIT, THETA, TURNED_PART, UNIFIED, UNSAID, Gemma4TextConfig
from comfy.text.memory import Memory
from comfy.text.qwen.network import QwenTextModel, causal_mask, cosines_and_sines, turn_frequencies

NO_PICTURE = -1
STOPS = (1, 50, 106)  # <eos>, <|tool_response>, <turn|>


class Gemma4TextModel(QwenTextModel):
    """Token embeddings, which it scales itself, to hidden states; otherwise as its base class.

    ``vision_model``, ``multi_modal_projector``, ``audio_model`` and ``audio_projector`` look and listen, where the file has them.
    """

    STOPS = STOPS
    WANTS_IDS = True

    def __init__(
        self, config: Gemma4TextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32
    ) -> None:
        torch.nn.Module.__init__(self)
        self.config: Any = config
        self.num_layers = config.num_layers
        self.dtype = dtype
        self.visual = None
        self.model = _language_model(config)
        self._kinds = config.kinds()
        self._add_senses(config)
        parameters_from_buffers(self)  # bounds of layers, and what their ends are multiplied with
        comfy.ops.adopt_layers(self, operations)
        _scale(self.model.embed_tokens, config.hidden_size)
        if config.per_layer:
            _scale(self.model.embed_tokens_per_layer, config.per_layer)

    def _add_senses(self, config: Gemma4TextConfig) -> None:
        if config.glance is not None:
            self.vision_model = senses.made_glance(config.glance, config.hidden_size)
            self.multi_modal_projector = senses.Projector(config.glance.hidden_size, config.hidden_size, config.eps)
            self.audio_projector = senses.Projector(config.glance.samples, config.hidden_size, config.eps)
        if config.eyes is not None:
            self.vision_model = senses.made_eyes(config.eyes)
            self.multi_modal_projector = senses.Projector(config.eyes.hidden_size, config.hidden_size, config.eps)
        if config.ears is not None:
            self.audio_model = senses.made_ears(config.ears)
            self.audio_projector = senses.Projector(config.ears.output_size, config.hidden_size, config.eps)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """As its base class, between bounds; what ends a picture or a sound, the one without towers never says."""
        scores = SCORE_LIMIT * torch.tanh(super().logits(states) / SCORE_LIMIT)
        if self.config.size == UNIFIED:
            unsaid = [token for token in UNSAID if token < scores.shape[-1]]
            scores[..., unsaid] = torch.finfo(scores.dtype).min
        return scores

    def preprocess_embed(self, embed: Mapping[str, Any], device: torch.device) -> tuple[torch.Tensor | None, Any]:
        """(vectors 1 x tokens x width, None) of a picture or a sound.

        These are {"type": "image", "data": 1 x height x width x 3} and {"type": "audio", "data": 1 x moments x bands (or samples),
        "mask": 1 x moments}.

        Raises ``ValueError`` for other kinds, and for a model without eyes or ears.
        """
        kind = embed.get("type")
        if kind == "image" and (self.config.eyes is not None or self.config.glance is not None):
            return self.multi_modal_projector(self._look(embed["data"], device)), None
        if kind == "audio" and (self.config.ears is not None or self.config.glance is not None):
            return self.audio_projector(self._listen(embed, device)), None
        needs = "that part of it is not in its file; use a Gemma 4 file with vision_model and audio_projector"
        raise ValueError(f"there is {kind!r} among the tokens, but this text encoder takes none: {needs}")

    def _look(self, picture: torch.Tensor, device: torch.device) -> torch.Tensor:
        if self.config.glance is not None:
            return senses.glanced(self.vision_model, picture.to(device, self.dtype), senses.glance_side(self.config.glance))
        return senses.seen(self.vision_model, picture.to(device, torch.float32), self.config.eyes.patch_size)

    def _listen(self, embed: Mapping[str, Any], device: torch.device) -> torch.Tensor:
        if self.config.glance is not None:
            return embed["data"].to(device, self.dtype)
        mask = embed.get("mask")
        return senses.heard(self.audio_model, embed["data"].to(device, torch.float32), None if mask is None else mask.to(device))

    def _positions(self, length: int, embeds_info: Sequence[dict[str, Any]], device: torch.device, memory: Memory | None) -> torch.Tensor:
        """2 x tokens: where they stand, and which picture they are of."""
        places = super()._positions(length, (), device, memory)
        pictures = torch.full_like(places, NO_PICTURE)
        is_begun = memory is not None and memory.tokens > 0
        for number, info in enumerate(() if is_begun else embeds_info):
            if info.get("type") == "image":
                pictures[info["index"] : info["index"] + info["size"]] = number
        return torch.stack((places, pictures))

    def _layer_arguments(
        self, embeds: torch.Tensor, attention_mask: torch.Tensor | None, positions: torch.Tensor, memory: Memory | None
    ) -> tuple[dict[str, Any], ...]:
        past = 0 if memory is None else memory.tokens
        places, pictures = positions
        whole = self.config.size in (UNIFIED, LARGE)
        made: dict[str, Any] = {}
        for kind, window in ((NEAR, self.config.window), (FAR, None)):
            mask = causal_mask(embeds, attention_mask, past, window)
            made[kind] = {
                "attention_mask": _with_pictures(mask, pictures) if whole else mask,
                "position_embeddings": self._turns_of(places, kind, embeds.dtype),
            }
        shared: dict[str, Any] = {}
        told = self._told(embeds, None if memory is None else memory.ids)
        own = [None] * len(self._kinds) if told is None else told.unbind(dim=2)
        return tuple({**made[kind], "shared_kv_states": shared, "per_layer_input": one} for kind, one in zip(self._kinds, own))

    def _turns_of(self, places: torch.Tensor, kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        width = self.config.head_width if kind == NEAR else self.config.global_head_width
        frequencies = turn_frequencies(width, THETA[kind], places.device)
        if kind == FAR:
            frequencies[int(TURNED_PART * width // 2) :] = 0.0
        return cosines_and_sines(places.to(torch.float32)[:, None] * frequencies, dtype)

    def _told(self, embeds: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor | None:
        """What each layer is told of each token (B x tokens x layers x width): of its vector and, where they are known, of its number."""
        if not self.config.per_layer:
            return None
        sizes = (self.num_layers, self.config.per_layer)
        of_vectors = self.model.per_layer_model_projection(embeds) * self.config.hidden_size**-0.5
        of_vectors = self.model.per_layer_projection_norm(of_vectors.unflatten(-1, sizes))
        if ids is None:
            return of_vectors
        of_ids = self.model.embed_tokens_per_layer(ids, out_dtype=embeds.dtype).unflatten(-1, sizes)
        return (of_vectors + of_ids) * 2.0**-0.5


def _with_pictures(mask: torch.Tensor | None, pictures: torch.Tensor) -> torch.Tensor | None:
    """*mask* (… x tokens x tokens) without hindrance between tokens of one picture."""
    if mask is None or not bool((pictures != NO_PICTURE).any()):
        return mask
    same = (pictures[:, None] == pictures[None]) & (pictures != NO_PICTURE)
    return mask.masked_fill(same, 0.0)


def _scale(layer: torch.nn.Module, width: int) -> None:
    """Have the embedding *layer* multiply what it gives with the root of *width*."""
    layer.register_forward_hook(lambda module, inputs, vectors: vectors * width**0.5)


def _language_model(config: Gemma4TextConfig) -> torch.nn.Module:
    """transformers' layers under ComfyUI's names, on the meta device."""
    from transformers.models.gemma4.configuration_gemma4 import Gemma4TextConfig as TransformersConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4TextModel as TransformersModel

    arguments = TransformersConfig(**{**config.transformers_arguments(), "attn_implementation": "sdpa"})
    with torch.device("meta"):
        built: Any = TransformersModel(arguments).eval().requires_grad_(False)
        model = torch.nn.Module()
        model.embed_tokens = torch.nn.Embedding(config.vocabulary, config.hidden_size).requires_grad_(False)
        model.layers, model.norm = built.layers, built.norm
        if config.per_layer:
            width = config.num_layers * config.per_layer
            model.embed_tokens_per_layer = torch.nn.Embedding(config.vocabulary, width).requires_grad_(False)
            model.per_layer_model_projection = built.per_layer_model_projection
            model.per_layer_projection_norm = built.per_layer_projection_norm
    return model
