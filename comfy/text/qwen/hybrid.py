"""Qwen 3.5: most layers keep a state instead of attending, every fourth attends, built from transformers' layers.

S. Yang, J. Kautz, A. Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule" (2024).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.families.sd_unet_config import count_blocks
from comfy.text.memory import Memory, new_memory
from comfy.text.qwen.network import QwenTextModel, causal_mask, cosines_and_sines, turn_frequencies
from comfy.text.qwen.sizes import DeepEyesConfig, qwen3_vl_name
from comfy.text.qwen.vision3 import Qwen3VLTextModel, deep_eyes

Shape = tuple[int, ...]
LINEAR, FULL = "linear_attention", "full_attention"
TURNED_PART = 4  # a quarter of each head turns by position
SMALL_EYES_WIDTH, SMALL_EYES_HEADS, EYES_HEADS = 768, 12, 16
UNTIED_WIDTHS = (4096, 5120)  # of those whose head is not their table of embeddings
STOPS = (248044, 248046)  # <|endoftext|>, <|im_end|>
SECTIONS = (11, 11, 10)  # how many pairs turn by frame, row and column


@dataclass(frozen=True, slots=True)
class HybridTextConfig:
    """Sizes of one language model. ``kinds``: of each layer, ``LINEAR`` or ``FULL``. ``value_heads``, ``state_heads`` and ``state_width``:
    heads of values and of keys in the former, and how wide they are. ``kernel``: how many tokens their convolution sees.
    """

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    head_width: int
    kinds: tuple[str, ...]
    value_heads: int
    state_heads: int
    state_width: int
    kernel: int
    eyes: DeepEyesConfig | None = None
    has_head: bool = False
    rope_theta: float = 1e7
    eps: float = 1e-6

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Qwen3_5TextConfig``."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_heads,
            "head_dim": self.head_width,
            "layer_types": list(self.kinds),
            "linear_num_value_heads": self.value_heads,
            "linear_num_key_heads": self.state_heads,
            "linear_key_head_dim": self.state_width,
            "linear_value_head_dim": self.state_width,
            "linear_conv_kernel_dim": self.kernel,
            "rms_norm_eps": self.eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta, "partial_rotary_factor": 1 / TURNED_PART},
        }


def read_hybrid_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> HybridTextConfig | None:
    """The model that *shapes* describe in transformers' names or ComfyUI's (no prefix), or None. *settings* are not asked."""
    own = {qwen3_vl_name(key): shape for key, shape in shapes.items()}
    count = count_blocks(own, "model.layers.{}.")
    kinds = tuple(LINEAR if f"model.layers.{number}.linear_attn.A_log" in own else FULL for number in range(count))
    if LINEAR not in kinds or FULL not in kinds:
        return None
    state, full = f"model.layers.{kinds.index(LINEAR)}.linear_attn.", f"model.layers.{kinds.index(FULL)}.self_attn."
    names = [f"{state}{name}.weight" for name in ("in_proj_qkv", "in_proj_z", "norm", "conv1d")]
    names += [f"{full}{name}.weight" for name in ("q_proj", "k_proj", "q_norm")]
    names += ["model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight"]
    if not all(name in own for name in names):
        return None
    mixed, values, width, convolution, queries, keys, head, table, wide = (own[name] for name in names)
    return HybridTextConfig(
        vocabulary=table[0],
        hidden_size=table[1],
        intermediate_size=wide[0],
        num_layers=count,
        num_heads=queries[0] // (2 * head[0]),  # with a gate for each
        num_key_heads=keys[0] // head[0],
        head_width=head[0],
        kinds=kinds,
        value_heads=values[0] // width[0],
        state_heads=(mixed[0] - values[0]) // (2 * width[0]),
        state_width=width[0],
        kernel=convolution[-1],
        eyes=_read_eyes(own),
        has_head=table[1] in UNTIED_WIDTHS and "lm_head.weight" in own,
    )


def _read_eyes(own: Mapping[str, Shape]) -> DeepEyesConfig | None:
    patches, places = own.get("visual.patch_embed.proj.weight"), own.get("visual.pos_embed.weight")
    wide, out = own.get("visual.blocks.0.mlp.linear_fc1.weight"), own.get("visual.merger.linear_fc2.weight")
    if patches is None or places is None or wide is None or out is None:
        return None
    return DeepEyesConfig(
        hidden_size=patches[0],
        intermediate_size=wide[0],
        depth=count_blocks(own, "visual.blocks.{}."),
        output_size=out[0],
        patch_size=patches[-1],
        frames=patches[2],
        positions=places[0],
        told=(),
        heads=SMALL_EYES_HEADS if patches[0] == SMALL_EYES_WIDTH else EYES_HEADS,
    )


class HybridTextModel(Qwen3VLTextModel):
    """Token embeddings to hidden states, as its base class. Padding hides tokens from the layers that attend, not from the others."""

    STOPS = STOPS
    AXES = tuple(axis for axis, pairs in enumerate(SECTIONS) for _ in range(pairs))

    def __init__(
        self, config: HybridTextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32
    ) -> None:
        torch.nn.Module.__init__(self)
        self.config: Any = config
        self.num_layers = config.num_layers
        self.dtype = dtype
        built = _language_model(config)
        self._built_config = built.config
        self.model = torch.nn.Module()
        for name in ("embed_tokens", "layers", "norm"):
            setattr(self.model, name, getattr(built, name))
        for layer in self.model.layers:
            if layer.block_type == LINEAR:
                layer.linear_attn.__class__ = _StateLayer
                layer.linear_attn.norm.__class__ = _GatedNorm
        self.visual = None if config.eyes is None else deep_eyes(config.eyes)
        if config.has_head:
            self.lm_head = torch.nn.Linear(config.hidden_size, config.vocabulary, bias=False, device="meta").requires_grad_(False)
        comfy.ops.adopt_layers(self, operations)

    def new_memory(self) -> Memory:
        """As the base class, with states for the layers that keep one."""
        return new_memory(self._built_config)

    def preprocess_embed(self, embed: Mapping[str, Any], device: torch.device) -> tuple[torch.Tensor | None, Any]:
        """(vectors tokens x width, grid), see :meth:`QwenTextModel.preprocess_embed`."""
        return QwenTextModel.preprocess_embed(self, embed, device)

    @staticmethod
    def _grid(info: Mapping[str, Any]) -> Any:
        return info["extra"]

    def _seen(self, number: int, x: torch.Tensor, embeds_info: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        return x

    def _positions(self, length: int, embeds_info: Sequence[dict[str, Any]], device: torch.device, memory: Memory | None) -> torch.Tensor:
        # When it writes, ComfyUI has pictures stand among the words like words.
        return super()._positions(length, embeds_info if memory is None else (), device, memory)

    def _layer_arguments(
        self, embeds: torch.Tensor, attention_mask: torch.Tensor | None, positions: torch.Tensor, memory: Memory | None
    ) -> tuple[dict[str, Any], ...]:
        mask = causal_mask(embeds, attention_mask, 0 if memory is None else memory.tokens)
        turns = self._turns(positions, embeds.dtype)
        return tuple({"attention_mask": mask if kind == FULL else None, "position_embeddings": turns} for kind in self.config.kinds)

    def _turns(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = turn_frequencies(self.config.head_width // TURNED_PART, self.config.rope_theta, positions.device)
        if positions.ndim > 1:
            return cosines_and_sines(positions[torch.tensor(self.AXES, device=positions.device)].T * frequencies, dtype)
        return cosines_and_sines(positions.to(torch.float32)[:, None] * frequencies, dtype)


class _StateLayer(torch.nn.Module):
    """transformers' layer with a state, whose weights are used where and as its input needs them."""

    in_proj_qkv: Any
    in_proj_z: Any
    in_proj_b: Any
    in_proj_a: Any
    conv1d: Any
    norm: Any
    out_proj: Any
    A_log: torch.Tensor
    dt_bias: torch.Tensor
    layer_idx: int
    conv_kernel_size: int
    head_k_dim: int
    head_v_dim: int
    key_dim: int
    value_dim: int

    def forward(self, hidden_states: torch.Tensor, cache_params: Any = None, **others: Any) -> torch.Tensor:
        """B x tokens x width to the same. *cache_params* is transformers' cache, or None; *others* are not needed."""
        from transformers.models.qwen3_5 import modeling_qwen3_5 as rules

        x, (batch, tokens, _) = hidden_states, hidden_states.shape
        mixed, state = self.in_proj_qkv(x).transpose(1, 2), None
        if cache_params is not None:
            state = cache_params.get_recurrent_state(self.layer_idx, state_idx=0)
            mixed = cache_params.update_conv_state(mixed, self.layer_idx, conv_kernel_size=self.conv_kernel_size)
        mixed = F.silu(self.conv1d(mixed)[..., : mixed.shape[-1]])[..., -tokens:].transpose(1, 2)
        query, key, value = (
            part.reshape(batch, tokens, -1, self.head_k_dim) for part in mixed.split((self.key_dim, self.key_dim, self.value_dim), dim=-1)
        )
        decay, bias = (comfy.ops.cast_to(one, torch.float32, x.device) for one in (self.A_log, self.dt_bias))
        fading = -decay.exp() * F.softplus(self.in_proj_a(x).float() + bias)
        rule = rules.torch_chunk_gated_delta_rule if state is None or tokens > 1 else rules.torch_recurrent_gated_delta_rule
        out, state = rule(
            query,
            key,
            value,
            g=fading,
            beta=self.in_proj_b(x).sigmoid(),
            initial_state=state,
            output_final_state=cache_params is not None,
            use_qk_l2norm_in_kernel=True,
        )
        if cache_params is not None:
            cache_params.update_recurrent_state(state, self.layer_idx)
        gate = self.in_proj_z(x).reshape(-1, self.head_v_dim)
        return self.out_proj(self.norm(out.reshape(-1, self.head_v_dim), gate).reshape(batch, tokens, -1))


class _GatedNorm(torch.nn.Module):
    """transformers' norm with a gate, which rounds to no other dtype than the input's."""

    weight: torch.Tensor
    variance_epsilon: float

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """(…, width), normalised, scaled and gated."""
        weight = comfy.ops.cast_to_input(self.weight, x, copy=False)
        return F.rms_norm(x, x.shape[-1:], weight, self.variance_epsilon) * F.silu(gate)


def _language_model(config: HybridTextConfig) -> Any:
    """transformers' network without its head, on the meta device."""
    from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextModel

    arguments = Qwen3_5TextConfig(**{**config.transformers_arguments(), "attn_implementation": "sdpa"})
    with torch.device("meta"):
        return Qwen3_5TextModel(arguments).eval().requires_grad_(False)
