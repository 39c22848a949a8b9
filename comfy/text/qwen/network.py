"""Qwen 2.5 (with eyes: Qwen2.5-VL) and Qwen 3 as text encoders, built from transformers' layers. They compute in their input's dtype."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ops
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import WeightSource
from comfy.text.memory import Memory, new_memory
from comfy.text.qwen.pictures import picture_patches, token_positions
from comfy.text.qwen.sizes import ROPE_SECTIONS, EyesConfig, QwenTextConfig

Intermediate = int | str | list[int] | None


class QwenTextModel(torch.nn.Module):
    """Token embeddings to hidden states. Parameters are on the meta device until :meth:`load_weights`.

    ``model`` and ``visual`` (None without eyes) carry the published names, which are ComfyUI's.
    """

    STOPS: tuple[int, ...] = (151643, 151645)  # <|endoftext|>, <|im_end|>
    WANTS_IDS: bool = False  # whether it is told, when it writes, which tokens it reads; then these count as said too
    AXES: tuple[int, ...] = tuple(axis for axis, pairs in enumerate(ROPE_SECTIONS) for _ in range(pairs))  # that each pair turns by
    model: Any
    visual: Any
    lm_head: torch.nn.Module | None = None

    def __init__(self, config: QwenTextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.num_layers = config.num_layers
        self.dtype = dtype
        built = _language_model(config)
        self.model = torch.nn.Module()
        for name in ("embed_tokens", "layers", "norm"):
            setattr(self.model, name, getattr(built, name))
        self.visual = None if config.eyes is None else self._make_eyes(config.eyes)
        if config.has_head:
            self.lm_head = torch.nn.Linear(config.hidden_size, config.vocabulary, bias=False, device="meta").requires_grad_(False)
        keep_dtypes(self)
        comfy.ops.adopt_layers(self, operations)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """The token embedding layer."""
        return self.model.embed_tokens

    def stop_tokens(self) -> tuple[int, ...]:
        """The tokens after which the model has nothing more to say. Raises ``ValueError`` for a model that cannot say anything."""
        return self.STOPS

    def new_memory(self) -> Memory:
        """What :meth:`forward` takes to go on from the tokens before: nothing yet."""
        return new_memory()

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """How likely each token of the vocabulary is after *states* (B x tokens x width): B x tokens x vocabulary.

        Where the file has no head of its own, it is the table of token embeddings.
        """
        if self.lm_head is not None:
            return self.lm_head(states)
        table: Any = self.get_input_embeddings()
        weight = comfy.ops.cast_bias_weight(table, states)[0]
        return torch.nn.functional.linear(states, weight)

    def preprocess_embed(self, embed: Mapping[str, Any], device: torch.device) -> tuple[torch.Tensor | None, Any]:
        """(vectors tokens x width, grid) of {"type": "image", "data": B x height x width x 3}, of which the first picture counts.

        Raises ``ValueError`` for other kinds, and for a model without eyes.
        """
        if self.visual is None or embed.get("type") != "image":
            needs = "holds no part that looks at pictures; use a file of it with visual" if self.visual is None else "takes pictures only"
            raise ValueError(f"there is {embed.get('type')!r} among the tokens, but this text encoder {needs}")
        eyes = self.config.eyes
        assert eyes is not None
        patches, grid = picture_patches(embed["data"][..., :3].to(device, torch.float32), eyes.patch_size, eyes.frames)
        return self.visual(patches, grid_thw=grid).pooler_output, grid

    def forward(
        self,
        embeds: torch.Tensor,
        num_tokens: list[int],
        attention_mask: torch.Tensor | None = None,
        intermediate_output: Intermediate = None,
        final_layer_norm_intermediate: bool = True,
        embeds_info: Sequence[dict[str, Any]] = (),
        memory: Memory | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        """Run the layers: (last hidden state, chosen hidden states or None, None, None); there is no pooled output.

        *embeds*: B x tokens x width, float32. *attention_mask*: B x tokens, 1 where a token may be attended to. *intermediate_output*: the
        number of a layer (negative ones count from the end), whose output is meant; or "all" or a list of numbers, whose inputs are (the
        number of layers means the normalised end), stacked along dimension 1. *embeds_info* tells of pictures among the tokens. With a
        *memory* the tokens follow those that it holds, and it takes them in.
        """
        several = intermediate_output == "all" or isinstance(intermediate_output, list)
        wanted = self._wanted(intermediate_output)
        positions = self._positions(embeds.shape[1], embeds_info, embeds.device, memory)
        arguments = self._layer_arguments(embeds, attention_mask, positions, memory)
        x, taken = embeds, []
        for number, layer in enumerate(self.model.layers):
            if several and number in wanted:
                taken.append(x)
            x = layer(x, past_key_values=None if memory is None else memory.cache, **arguments[number % len(arguments)])
            x = self._seen(number, x, embeds_info)
            if not several and number in wanted:
                taken.append(x)
        if memory is not None:
            memory.tokens += x.shape[1]
        last = self.model.norm(x)
        if several and self.num_layers in wanted:
            taken.append(last)
        if not taken:
            return last, None, None, None
        chosen = torch.stack(taken, dim=1) if several else taken[0]
        return last, self.model.norm(chosen) if final_layer_norm_intermediate else chosen, None, None

    @staticmethod
    def _make_eyes(config: Any) -> Any:
        """The part that looks at pictures."""
        return _eyes(config)

    @staticmethod
    def _grid(info: Mapping[str, Any]) -> Any:
        """The grid of a picture among the tokens."""
        return info["extra"]

    def _seen(self, number: int, x: torch.Tensor, embeds_info: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """*x* after the layer *number*, with what that layer is told of pictures: nothing."""
        return x

    def _wanted(self, intermediate_output: Intermediate) -> set[int]:
        if intermediate_output is None:
            return set()
        if isinstance(intermediate_output, int):
            return {intermediate_output % self.num_layers}
        return set(range(self.num_layers + 1)) if isinstance(intermediate_output, str) else set(intermediate_output)

    def _positions(self, length: int, embeds_info: Sequence[dict[str, Any]], device: torch.device, memory: Memory | None) -> torch.Tensor:
        """Where *length* tokens stand: tokens, or, with pictures among them, 3 x tokens."""
        start = 0 if memory is None else memory.next_position
        pictures = [{**info, "extra": self._grid(info)} for info in embeds_info if info.get("type") == "image"]
        if pictures:
            positions = start + token_positions(pictures, length, device)
        else:
            positions = torch.arange(start, start + length, device=device)
        if memory is not None:
            memory.next_position = int(positions.max()) + 1
        return positions

    def _layer_arguments(
        self, embeds: torch.Tensor, attention_mask: torch.Tensor | None, positions: torch.Tensor, memory: Memory | None
    ) -> tuple[dict[str, Any], ...]:
        """What the layers are called with beside their input: the first, the second …, and from the first again."""
        mask = causal_mask(embeds, attention_mask, 0 if memory is None else memory.tokens)
        return ({"attention_mask": mask, "position_embeddings": self._turns(positions, embeds.dtype)},)

    def _turns(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of *positions*: 1 x tokens x width of a head."""
        frequencies = turn_frequencies(self.config.head_width, self.config.rope_theta, positions.device)
        if positions.ndim > 1:
            return cosines_and_sines(positions[torch.tensor(self.AXES, device=positions.device)].T * frequencies, dtype)
        return cosines_and_sines(positions.to(torch.float32)[:, None] * frequencies, dtype)

    def load_weights(self, source: WeightSource, dtype: torch.dtype, what: str) -> set[str]:
        """Take the weights from *source* (no prefix), floating-point ones in *dtype*; returns the names of the tensors used.

        *what* names the component in errors. Raises ``ModelFileError``.
        """
        part = plain_weights(source)
        with naming_file(source.name, what):
            plan = plan_conversion(part.shapes(), lambda tensors: tensors)
        return set(load_parameters(self, part, plan, dtype, what).keys())


def _language_model(config: QwenTextConfig) -> Any:
    """transformers' network without its head, on the meta device."""
    from transformers import Qwen2Config, Qwen2Model, Qwen3Config, Qwen3Model

    kinds: tuple[Any, Any] = (Qwen3Config, Qwen3Model) if config.normalised else (Qwen2Config, Qwen2Model)
    arguments = kinds[0](**config.transformers_arguments(), attn_implementation="sdpa")
    with torch.device("meta"):
        return kinds[1](arguments).eval().requires_grad_(False)


def _eyes(config: EyesConfig) -> Any:
    """transformers' network for pictures, on the meta device."""
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    arguments = Qwen2_5_VLVisionConfig(**{**config.transformers_arguments(), "attn_implementation": "sdpa"})
    with torch.device("meta"):
        built: Any = Qwen2_5_VisionTransformerPretrainedModel(arguments).eval().requires_grad_(False)
    built.rotary_pos_emb = type(built.rotary_pos_emb)(arguments)  # its frequencies are in no file
    built.patch_embed.__class__ = PatchEmbedding
    return built


def turn_frequencies(width: int, theta: float, device: torch.device) -> torch.Tensor:
    """How far each pair of a head of that *width* turns from one position to the next: width / 2."""
    return 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)


def cosines_and_sines(angles: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of *angles* (tokens x pairs), for both halves of a head: 1 x tokens x (2 · pairs)."""
    both = torch.cat((angles, angles), dim=-1)[None]
    return both.cos().to(dtype), both.sin().to(dtype)


def causal_mask(embeds: torch.Tensor, attention_mask: torch.Tensor | None, past: int = 0, window: int | None = None) -> torch.Tensor | None:
    """What is added to scores: (1 or B) x 1 x tokens x (past + tokens), low for later tokens and for those that *attention_mask* hides.

    *past*: how many tokens were before. With a *window*, a token attends to that many, itself among them. None where all is attended to.
    """
    tokens = embeds.shape[1]
    if tokens == 1 and attention_mask is None and (window is None or past < window):
        return None
    lowest = torch.finfo(embeds.dtype).min / 4
    distance = torch.arange(past, past + tokens, device=embeds.device)[:, None] - torch.arange(past + tokens, device=embeds.device)
    unseen = distance < 0 if window is None else (distance < 0) | (distance >= window)
    mask = torch.zeros(unseen.shape, dtype=embeds.dtype, device=embeds.device).masked_fill_(unseen, lowest)[None, None]
    if attention_mask is None:
        return mask
    hidden = (attention_mask == 0)[:, None, None, :]
    return mask + torch.zeros(hidden.shape, dtype=embeds.dtype, device=embeds.device).masked_fill(hidden, lowest)


class _Norm(torch.nn.Module):
    """transformers' norm, which rounds to no other dtype than the input's."""

    weight: torch.Tensor
    variance_epsilon: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, width), divided by the root of the mean square and scaled."""
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return comfy.ops.cast_to_input(self.weight, x, copy=False) * (x * scale)


class PatchEmbedding(torch.nn.Module):
    """transformers' embedding of patches, which does not round them to the weight's dtype."""

    in_channels: int
    temporal_patch_size: int
    patch_size: int
    embed_dim: int
    proj: Any

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches x values to patches x width."""
        pictures = patches.view(-1, self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size)
        return self.proj(pictures).view(-1, self.embed_dim)


def keep_dtypes(module: torch.nn.Module) -> None:
    """Turn the norms, which cast to their weights' dtype, into ours, in place."""
    for layer in module.modules():
        if hasattr(layer, "variance_epsilon"):
            layer.__class__ = _Norm
