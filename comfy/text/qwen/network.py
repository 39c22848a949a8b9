"""Qwen 2.5 (with eyes: Qwen2.5-VL) and Qwen 3 as text encoders, built from transformers' layers. They compute in their input's dtype."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.ops
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import WeightSource
from comfy.text.qwen.pictures import picture_patches, token_positions
from comfy.text.qwen.sizes import ROPE_SECTIONS, EyesConfig, QwenTextConfig

Intermediate = int | str | list[int] | None


class QwenTextModel(torch.nn.Module):
    """Token embeddings to hidden states. Parameters are on the meta device until :meth:`load_weights`.

    ``model`` and ``visual`` (None without eyes) carry the published names, which are ComfyUI's.
    """

    model: Any
    visual: Any

    def __init__(self, config: QwenTextConfig, operations: type[comfy.ops.disable_weight_init], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.num_layers = config.num_layers
        self.dtype = dtype
        built = _language_model(config)
        self.model = torch.nn.Module()
        for name in ("embed_tokens", "layers", "norm"):
            setattr(self.model, name, getattr(built, name))
        self.visual = None if config.eyes is None else _eyes(config.eyes)
        keep_dtypes(self)
        comfy.ops.adopt_layers(self, operations)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """The token embedding layer."""
        return self.model.embed_tokens

    def preprocess_embed(self, embed: Mapping[str, Any], device: torch.device) -> tuple[torch.Tensor | None, Any]:
        """(vectors tokens x width, grid) of {"type": "image", "data": B x height x width x 3}, of which the first picture counts.

        Raises ``ValueError`` for other kinds, and for a model without eyes.
        """
        if self.visual is None or embed.get("type") != "image":
            needs = "holds no part that looks at pictures; use Qwen2.5-VL's file" if self.visual is None else "takes pictures only"
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
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        """Run the layers: (last hidden state, chosen hidden states or None, None, None); there is no pooled output.

        *embeds*: B x tokens x width, float32. *attention_mask*: B x tokens, 1 where a token may be attended to. *intermediate_output*: the
        number of a layer (negative ones count from the end), whose output is meant; or "all" or a list of numbers, whose inputs are (the
        number of layers means the normalised end), stacked along dimension 1. *embeds_info* tells of pictures among the tokens.
        """
        several = intermediate_output == "all" or isinstance(intermediate_output, list)
        wanted = self._wanted(intermediate_output)
        mask, turns = causal_mask(embeds, attention_mask), self._turns(embeds, embeds_info)
        x, taken = embeds, []
        for number, layer in enumerate(self.model.layers):
            if several and number in wanted:
                taken.append(x)
            x = layer(x, attention_mask=mask, position_embeddings=turns)
            if not several and number in wanted:
                taken.append(x)
        last = self.model.norm(x)
        if several and self.num_layers in wanted:
            taken.append(last)
        if not taken:
            return last, None, None, None
        chosen = torch.stack(taken, dim=1) if several else taken[0]
        return last, self.model.norm(chosen) if final_layer_norm_intermediate else chosen, None, None

    def _wanted(self, intermediate_output: Intermediate) -> set[int]:
        if intermediate_output is None:
            return set()
        if isinstance(intermediate_output, int):
            return {intermediate_output % self.num_layers}
        return set(range(self.num_layers + 1)) if isinstance(intermediate_output, str) else set(intermediate_output)

    def _turns(self, embeds: torch.Tensor, embeds_info: Sequence[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of the tokens' positions: 1 x tokens x width of a head."""
        pictures = [info for info in embeds_info if info.get("type") == "image"]
        if not pictures:
            return rotations(self.config, torch.arange(embeds.shape[1], device=embeds.device), embeds)
        positions = token_positions(pictures, embeds.shape[1], embeds.device)
        axes = torch.repeat_interleave(torch.arange(3), torch.tensor(ROPE_SECTIONS)).to(embeds.device)
        return rotations(self.config, positions[axes].T, embeds)

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
    built.patch_embed.__class__ = _PatchEmbedding
    return built


def rotations(config: Any, places: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, 1 x tokens x width of a head, as *like* is, of *places*: one per token, or one per token and pair of values."""
    width = config.head_width
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=like.device) / width
    angles = (places if places.ndim == 2 else places[:, None]) * (1.0 / config.rope_theta**exponents)
    angles = torch.cat((angles, angles), dim=-1)[None]
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def causal_mask(embeds: torch.Tensor, attention_mask: torch.Tensor | None, done: int = 0) -> torch.Tensor:
    """What is added to scores: (1 or B) x 1 x tokens x (done + tokens), low for later tokens and for those that *attention_mask*
    (B x (done + tokens)) hides. *done*: how many came before.
    """
    tokens = embeds.shape[1]
    lowest = torch.finfo(embeds.dtype).min / 4
    mask = torch.full((tokens, done + tokens), lowest, dtype=embeds.dtype, device=embeds.device).triu_(done + 1)[None, None]
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


class _PatchEmbedding(torch.nn.Module):
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
