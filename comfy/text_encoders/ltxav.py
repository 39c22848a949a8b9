"""Prompt encoding for LTX 2: the states of all layers of Gemma 3 12B or Gemma 4, projected to the width of the transformer's text."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import torch

import comfy.model_management
import comfy.ops
from comfy.families.published_weights import load_published
from comfy.families.weight_source import WeightSource
from comfy.ldm.lightricks.embeddings_connector import Embeddings1DConnector
from comfy.supported_models_base import ClipTarget
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text.ltx_projection_config import CONNECTORS, PROJECTION, ProjectionConfig
from comfy.text_encoders.gemma3 import LARGE, Gemma3_12BModel
from comfy.text_encoders.gemma4 import PART, TOKENIZERS, Gemma4Model, ltxav_gemma4_tokenizer
from comfy.units import MIB

SPREAD = 8.0  # of states after they are brought to a common range
MIB_PER_TOKEN, FEWEST_TOKENS = 6.0, 642  # of working memory, measured by ComfyUI
ALMOST_ZERO = 1e-6
States = torch.Tensor  # batch x layers x tokens x width


class DualLinearProjection(torch.nn.Module):
    """States, normalised layer by layer, to text for the video and for the sound, side by side."""

    def __init__(
        self,
        in_dim: int,
        out_dim_video: int,
        out_dim_audio: int,
        video_bias: bool = True,
        audio_bias: bool = True,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = comfy.ops.disable_weight_init,
    ) -> None:
        super().__init__()
        self.audio_aggregate_embed = operations.Linear(in_dim, out_dim_audio, bias=audio_bias, dtype=dtype, device=device)
        self.video_aggregate_embed = operations.Linear(in_dim, out_dim_video, bias=video_bias, dtype=dtype, device=device)

    def forward(self, x: States) -> torch.Tensor:
        """Batch x tokens x both widths."""
        width = x.shape[-1]
        by_token = x.movedim(1, -1)
        even = (by_token * torch.rsqrt(by_token.square().mean(dim=2, keepdim=True) + ALMOST_ZERO)).flatten(2)
        parts = (self.video_aggregate_embed, self.audio_aggregate_embed)
        return torch.cat([part(even * math.sqrt(part.out_features / width)) for part in parts], dim=-1)


def projection_layers(config: ProjectionConfig, kept: torch.dtype) -> dict[str, torch.nn.Module]:
    """The modules after the text model by their names, without weights, which are kept in *kept*."""
    operations: Any = comfy.ops.pick_operations(kept, torch.float32)
    places: dict[str, Any] = {"dtype": kept, "device": "meta"}
    if config.sound_width is None:
        projection = operations.Linear(config.inputs, config.video_width, bias=config.video_bias, **places)
    else:
        sizes = (config.inputs, config.video_width, config.sound_width, config.video_bias, config.sound_bias)
        projection = DualLinearProjection(*sizes, **places, operations=operations)
    layers: dict[str, torch.nn.Module] = {PROJECTION: projection}
    for name in CONNECTORS if config.connected else ():
        connector = Embeddings1DConnector(split_rope=True, double_precision_rope=True, operations=operations, **places)
        layers[name.removesuffix(".")] = connector
    return layers


class LTXAVTEModel(JointTextEncoder):
    """Gemma's states as text for LTX 2. Of the first one, whose files have small connectors, the text goes through these here.

    The text model, of the class ``TEXT_MODEL``, is ``gemma3_12b`` as in ComfyUI; its part of files and prompts is named ``PART``.
    """

    PART: ClassVar[str] = LARGE
    TEXT_MODEL: ClassVar[Callable[..., Any]] = Gemma3_12BModel
    text_embedding_projection: Any

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        options = dict(model_options or {})
        self.gemma3_12b = self.TEXT_MODEL(device=device, dtype=dtype, model_options={**options, "model_name": self.PART})
        kept = options.get(f"{PROJECTION}_dtype") or dtype or torch.float32
        config: ProjectionConfig = options[f"{PROJECTION}_model_config"]
        self.config, self.dtypes = config, {kept, self.gemma3_12b.dtype}
        self.execution_device: torch.device | None = None
        for name, module in projection_layers(config, kept).items():
            setattr(self, name, module)

    def parts(self) -> dict[str, Any]:
        """The text model alone."""
        return {self.PART: self.gemma3_12b}

    def set_clip_options(self, options: Mapping[str, Any]) -> None:
        """Options of the text model, and the device to compute on."""
        self.execution_device = options.get("execution_device", self.execution_device)
        super().set_clip_options(options)

    def reset_clip_options(self) -> None:
        """Restore them."""
        super().reset_clip_options()
        self.execution_device = None

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(text 1 x tokens x width float32, pooled output, extras) for {``PART``: chunks}, without the tokens that only fill up.

        ``unprocessed_ltxav_embeds`` in the extras says that connectors are still to come.
        """
        states, pooled, extra = self.gemma3_12b.encode_token_weights(token_weight_pairs[self.PART])
        states = states[:, :, -int(extra["attention_mask"].sum()) :]
        device, computed = states.device, self.execution_device or states.device
        fewer_bits = comfy.model_management.should_use_bf16(self.execution_device)
        text = self._projected(states.to(device=computed, dtype=torch.bfloat16 if fewer_bits else None))
        ready = {} if self.config.connected else {"unprocessed_ltxav_embeds": True}
        return text.to(device=device, dtype=torch.float32), pooled, ready

    def _projected(self, states: States) -> torch.Tensor:
        if self.config.sound_width is not None:
            return self.text_embedding_projection(states)
        by_token = states.movedim(1, -1)
        lowest, highest = by_token.amin(dim=(1, 2), keepdim=True), by_token.amax(dim=(1, 2), keepdim=True)
        ranged = SPREAD * (by_token - by_token.mean(dim=(1, 2), keepdim=True)) / (highest - lowest + ALMOST_ZERO)
        text = self.text_embedding_projection(ranged.flatten(2))
        if not self.config.connected:
            return text
        return torch.cat([getattr(self, name.removesuffix("."))(text)[0] for name in CONNECTORS], dim=-1)

    def generate(self, tokens: Mapping[str, Any], **options: Any) -> Any:
        """What the text model says after *tokens*, see :meth:`comfy.text.encoder.CLIP.generate`."""
        return self.gemma3_12b.generate(tokens[self.PART], **options)

    def load_weights(self, sources: Mapping[str, WeightSource]) -> None:
        """Weights of the text model and of what comes after it, by part."""
        super().load_weights(sources)
        self.load_projection(sources[PROJECTION])

    def load_projection(self, source: WeightSource) -> None:
        """Weights of what comes after the text model."""
        rest = torch.nn.ModuleDict({name: module for name, module in self.named_children() if name != LARGE})
        load_published(rest, source, next(iter(rest.parameters())).dtype, "the text encoder's projection")

    def memory_estimation_function(self, token_weight_pairs: Mapping[str, Any], device: Any = None) -> float:
        """Bytes of working memory to encode these tokens on *device*."""
        chunks = token_weight_pairs.get(self.PART, [])
        filling = min((sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == 0, chunk)) for chunk in chunks), default=0)
        count = max(sum(map(len, chunks)) - filling, FEWEST_TOKENS)
        return count * MIB_PER_TOKEN / (2 if comfy.model_management.should_use_bf16(device) else 1) * MIB


class LTXAVGemma4TEModel(LTXAVTEModel):
    """The same with Gemma 4, as LTX 2.5 has it."""

    PART, TEXT_MODEL = PART, Gemma4Model


def _of_gemma4(size: str, parts: Collection[str]) -> ClipTarget:
    return ClipTarget(ltxav_gemma4_tokenizer(TOKENIZERS[size]), LTXAVGemma4TEModel)


# Of Gemma 4, by its size, and what LTX 2.5 has for its states.
e2b_target, e4b_target, unified_target, large_target = (functools.partial(_of_gemma4, size) for size in TOKENIZERS)
