"""Gemma 3 as a text encoder, built from transformers' layers, with SigLIP's where its file has eyes.

Five of six layers look back over a window only, with turns of their own. Gemma Team, "Gemma 3 Technical Report" (2025).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import comfy.ops
from comfy.families.sd_unet_config import count_blocks
from comfy.image_encoders.pictures import SIGLIP_MEAN, clip_preprocess
from comfy.image_encoders.siglip import SiglipConfig, SiglipVisionTransformer, read_siglip_config
from comfy.text.gemma import scale_embeddings
from comfy.text.memory import Memory
from comfy.text.qwen.network import QwenTextModel, causal_mask, cosines_and_sines, turn_frequencies

Shape = tuple[int, ...]
HEAD = 256  # of a head, of the published sizes
LARGE_LAYERS = 48  # of the one with twelve billion parameters
EYES_SIDE = 16  # tokens along a picture's side
GLOBAL, LOCAL = (1e6, 8.0), (1e4, 1.0)  # base of the turns, and how much slower than that they are
EVERY = 6  # of so many layers, the last attends to everything
_FIRST = "model.layers.0."


@dataclass(frozen=True, slots=True)
class Gemma3TextConfig:
    """Sizes of one language model; ``window``: how many tokens most layers look back over; ``eyes``: those of what looks at pictures."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    head_width: int = HEAD
    window: int = 1024
    eps: float = 1e-6
    eyes: SiglipConfig | None = None

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Gemma3TextConfig``."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_heads,
            "head_dim": self.head_width,
            "query_pre_attn_scalar": self.head_width,
            "sliding_window": self.window,
            "rms_norm_eps": self.eps,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL[0]},
                "full_attention": {"rope_type": "linear", "factor": GLOBAL[1], "rope_theta": GLOBAL[0]},
            },
        }


GEMMA_3_12B = Gemma3TextConfig(262208, hidden_size=3840, intermediate_size=15360, num_layers=LARGE_LAYERS, num_heads=16, num_key_heads=8)
GEMMA_3_4B = Gemma3TextConfig(262208, hidden_size=2560, intermediate_size=10240, num_layers=34, num_heads=8, num_key_heads=4)


def read_gemma3_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> Gemma3TextConfig | None:
    """The model that *shapes* describe in published names (no prefix), or None if they describe none. *settings* are not asked."""
    table, wide = shapes.get("model.embed_tokens.weight"), shapes.get(f"{_FIRST}mlp.gate_proj.weight")
    queries, keys = shapes.get(f"{_FIRST}self_attn.q_proj.weight"), shapes.get(f"{_FIRST}self_attn.k_proj.weight")
    norm = shapes.get(f"{_FIRST}self_attn.q_norm.weight")
    if table is None or wide is None or queries is None or keys is None or norm is None:
        return None
    if f"{_FIRST}post_feedforward_layernorm.weight" not in shapes or f"{_FIRST}layer_scalar" in shapes:  # Qwen 3, Gemma 4
        return None
    return Gemma3TextConfig(
        vocabulary=table[0],
        hidden_size=table[1],
        intermediate_size=wide[0],
        num_layers=count_blocks(shapes, "model.layers.{}."),
        num_heads=queries[0] // norm[0],
        num_key_heads=keys[0] // norm[0],
        head_width=norm[0],
        eyes=read_siglip_config(shapes) if "multi_modal_projector.mm_input_projection_weight" in shapes else None,
    )


def is_gemma3_12b(config: Gemma3TextConfig) -> bool:
    """Whether *config* is Gemma 3 with twelve billion parameters, told by its depth."""
    return config.num_layers == LARGE_LAYERS


def is_gemma3_4b(config: Gemma3TextConfig) -> bool:
    """Whether *config* is Gemma 3 with four billion parameters, without eyes."""
    return not is_gemma3_12b(config) and config.eyes is None


def is_gemma3_4b_vision(config: Gemma3TextConfig) -> bool:
    """Whether *config* is Gemma 3 with four billion parameters, with eyes."""
    return not is_gemma3_12b(config) and config.eyes is not None


class Gemma3TextModel(QwenTextModel):
    """Token embeddings, which it scales itself, to hidden states; otherwise as its base class.

    ``vision_model`` and ``multi_modal_projector`` are what looks at pictures, and are only there where the file has them.
    """

    STOPS = (1, 106)  # <eos>, <end_of_turn>

    def __init__(
        self, config: Gemma3TextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32
    ) -> None:
        torch.nn.Module.__init__(self)
        self.config: Any = config
        self.num_layers = config.num_layers
        self.dtype = dtype
        built = _language_model(config)
        self.model = torch.nn.Module()
        self.model.embed_tokens = torch.nn.Embedding(config.vocabulary, config.hidden_size, device="meta").requires_grad_(False)
        self.model.layers, self.model.norm = built.layers, built.norm
        self.visual = None
        if config.eyes is not None:
            eyes = SiglipVisionTransformer(config.eyes, operations)
            self.vision_model = eyes.vision_model
            self.multi_modal_projector = _Projector(config.eyes, config.hidden_size, config.eps)
            self._look = (eyes,)  # no submodule of its own: its weights are those of ``vision_model``
        comfy.ops.adopt_layers(self, operations)
        scale_embeddings(self.model.embed_tokens)

    def stop_tokens(self) -> tuple[int, ...]:
        """The end of the model's turn and, of the smaller one, of the text, as in ComfyUI."""
        return self.STOPS[1:] if is_gemma3_12b(self.config) else self.STOPS

    def preprocess_embed(self, embed: Mapping[str, Any], device: torch.device) -> tuple[torch.Tensor | None, Any]:
        """(vectors 1 x 256 x width, None) of {"type": "image", "data": 1 x height x width x 3}, of whose picture the middle square counts.

        Raises ``ValueError`` for other kinds, and for a model without eyes.
        """
        eyes = self.config.eyes
        if eyes is None or embed.get("type") != "image":
            needs = "holds no part that looks at pictures; use a Gemma 3 file with vision_model" if eyes is None else "takes pictures only"
            raise ValueError(f"there is {embed.get('type')!r} among the tokens, but this text encoder {needs}")
        pixels = clip_preprocess(embed["data"].to(device, torch.float32), eyes.image_size, SIGLIP_MEAN, SIGLIP_MEAN)
        return self.multi_modal_projector(self._look[0](pixels)[0]), None

    def _layer_arguments(
        self, embeds: torch.Tensor, attention_mask: torch.Tensor | None, positions: torch.Tensor, memory: Memory | None
    ) -> tuple[dict[str, Any], ...]:
        past = 0 if memory is None else memory.tokens
        near = {
            "attention_mask": causal_mask(embeds, attention_mask, past, self.config.window),
            "position_embeddings": self._turns_of(positions, LOCAL, embeds.dtype),
        }
        far = {
            "attention_mask": causal_mask(embeds, attention_mask, past),
            "position_embeddings": self._turns_of(positions, GLOBAL, embeds.dtype),
        }
        return (*[near] * (EVERY - 1), far)

    def _positions(self, length: int, embeds_info: Any, device: torch.device, memory: Memory | None) -> torch.Tensor:
        return super()._positions(length, (), device, memory)  # pictures stand among the words

    def _turns_of(self, positions: torch.Tensor, kind: tuple[float, float], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = turn_frequencies(self.config.head_width, kind[0], positions.device) / kind[1]
        return cosines_and_sines(positions.to(torch.float32)[:, None] * frequencies, dtype)


class _Projector(torch.nn.Module):
    """SigLIP's states to vectors among the tokens: means of cells, normalised, in the language model's width."""

    def __init__(self, eyes: SiglipConfig, width: int, eps: float) -> None:
        super().__init__()
        self.side, self.eps = eyes.image_size // eyes.patch_size, eps
        empty = torch.empty(eyes.hidden_size, width, device="meta")
        self.mm_input_projection_weight = torch.nn.Parameter(empty, requires_grad=False)
        self.mm_soft_emb_norm: Any = _scale_alone(eyes.hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """B x patches x width of the eyes to B x tokens x width."""
        cell = max(1, self.side // EYES_SIDE)
        grid = states.transpose(1, 2).reshape(len(states), -1, self.side, self.side)
        x = torch.nn.functional.avg_pool2d(grid, cell).flatten(2).transpose(1, 2)
        scale = 1.0 + comfy.ops.cast_to_input(self.mm_soft_emb_norm.weight, x, copy=False)
        x = torch.nn.functional.rms_norm(x, x.shape[-1:], scale, self.eps)
        return x @ comfy.ops.cast_to_input(self.mm_input_projection_weight, x, copy=False)


def _scale_alone(width: int) -> torch.nn.Module:
    """A module with nothing but a ``weight``."""
    module = torch.nn.Module()
    module.register_parameter("weight", torch.nn.Parameter(torch.empty(width, device="meta"), requires_grad=False))
    return module


def _language_model(config: Gemma3TextConfig) -> Any:
    """transformers' network without its head, on the meta device."""
    from transformers import Gemma3TextConfig as TransformersConfig
    from transformers import Gemma3TextModel as TransformersModel

    arguments = TransformersConfig(**{**config.transformers_arguments(), "attn_implementation": "sdpa"})
    with torch.device("meta"):
        return TransformersModel(arguments).eval().requires_grad_(False)
