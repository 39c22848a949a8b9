"""Prompt encoding for Stable Diffusion 1.x: the text model with its options, and how token weights act on its output."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

import comfy.model_management
import comfy.ops
from comfy.families.clip_text import ClipTextTransformer
from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.loading.embeddings import expand_directory_list, load_embed
from comfy.supported_models_base import ClipTarget
from comfy.text.clip_tokenizer import SD1Tokenizer, SDTokenizer
from comfy.text.generation import Sampling, generate
from comfy.text.prompt_weights import escape_important, parse_parentheses, token_weights, unescape_important
from comfy.text.text_model import TextModel
from comfy.text.token_embedding import embed_tokens, token_ids

__all__ = [
    "ClipTokenWeightEncoder",
    "SD1CheckpointClipModel",
    "SD1ClipModel",
    "SD1Tokenizer",
    "SDClipModel",
    "SDTokenizer",
    "escape_important",
    "expand_directory_list",
    "gen_empty_tokens",
    "load_embed",
    "parse_parentheses",
    "token_weights",
    "unescape_important",
]

CLIP_L = ClipTextConfig(
    vocabulary=49408,
    positions=77,
    hidden_size=768,
    intermediate_size=3072,
    num_layers=12,
    num_heads=12,
    hidden_act="quick_gelu",
    projection=0,
)
CLIP_TOKENS = {"start": 49406, "end": 49407, "pad": 49407}


def gen_empty_tokens(special_tokens: Mapping[str, int | None], length: int) -> list[int | None]:
    """The tokens of an empty prompt, padded to *length*."""
    tokens = [special_tokens[name] for name in ("start", "end") if special_tokens.get(name) is not None]
    return tokens + [special_tokens.get("pad")] * (length - len(tokens))


class ClipTokenWeightEncoder:
    """Applies token weights: an output moves away from the empty prompt's in proportion to its token's weight."""

    special_tokens: Mapping[str, int | None]

    def encode_token_weights(self, token_weight_pairs: Sequence[Sequence[tuple[Any, ...]]]) -> tuple[Any, ...]:
        """(hidden states of all chunks along the tokens, pooled output of the first chunk or None[, extras])."""
        chunks = [[token for token, *_ in chunk] for chunk in token_weight_pairs]
        weighted = any(pair[1] != 1.0 for chunk in token_weight_pairs for pair in chunk)
        to_encode = list(chunks)
        if weighted or not chunks:
            to_encode.append(self.gen_empty_tokens(self.special_tokens, max(map(len, chunks), default=0)))
        out, pooled, *extras = self.encode(to_encode)
        device = comfy.model_management.intermediate_device()
        if weighted:
            for chunk, states in zip(token_weight_pairs, out):
                _weight_states(states, out[-1], [pair[1] for pair in chunk])
        states = torch.cat(list(out[: len(chunks)].split(1)), dim=-2) if chunks else out[-1:]
        result = (states.to(device), None if pooled is None else pooled[:1].to(device))
        return result if not extras else (*result, self._extra_outputs(extras[0], len(chunks), device))

    def gen_empty_tokens(self, special_tokens: Mapping[str, int | None], length: int) -> list[int | None]:
        """The tokens that weights count from: :func:`gen_empty_tokens`, where a subclass says nothing else."""
        return gen_empty_tokens(special_tokens, length)

    def encode(self, tokens: list[list[Any]]) -> tuple[Any, ...]:
        """(hidden states per chunk, pooled outputs or None[, extras])."""
        raise NotImplementedError

    @staticmethod
    def _extra_outputs(extra: Mapping[str, Any], chunks: int, device: torch.device) -> dict[str, Any]:
        return {name: value[:chunks].flatten()[None].to(device) if name == "attention_mask" else value for name, value in extra.items()}


def _weight_states(states: torch.Tensor, empty: torch.Tensor, weights: Sequence[float]) -> None:
    """In place: states = (states - empty) * weight + empty, at the tokens whose weight is not 1."""
    for index, weight in enumerate(weights[: len(states)]):
        if weight != 1.0:
            states[index] = (states[index] - empty[index]) * weight + empty[index]


class SDClipModel(torch.nn.Module, ClipTokenWeightEncoder):
    """One CLIP text model with the options of a prompt: which layer, which pooled output, on which device.

    ``textmodel_json_config`` holds its sizes (None: CLIP-L's). *model_class* makes the network: called with them, the layers to use and
    the weights' dtype, it gives a :class:`comfy.text.text_model.TextModel`. Of *model_options*, ``NAME_model_config`` and ``NAME_dtype``
    for the ``model_name`` NAME come before the arguments. Weights are meta tensors until :meth:`load_weights`.
    """

    LAYERS = ("last", "pooled", "hidden", "all")

    def __init__(
        self,
        device: Any = "cpu",
        max_length: int = 77,
        freeze: bool = True,
        layer: str | list[int] = "last",
        layer_idx: int | None = None,
        textmodel_json_config: Any = None,
        dtype: torch.dtype | None = None,
        model_class: Callable[..., TextModel] = ClipTextTransformer,
        special_tokens: Mapping[str, int | None] | None = None,
        layer_norm_hidden_state: bool = True,
        enable_attention_masks: bool = False,
        zero_out_masked: bool = False,
        return_projected_pooled: bool = True,
        return_attention_masks: bool = False,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = model_options or {}
        name = options.get("model_name", "clip_l")
        self.dtype = options.get(f"{name}_dtype") or dtype or torch.float32
        operations = options.get("custom_operations") or comfy.ops.pick_operations(self.dtype, torch.float32)
        config = options.get(f"{name}_model_config") or textmodel_json_config or CLIP_L
        self.transformer: Any = model_class(config, operations, self.dtype)
        self.num_layers = self.transformer.num_layers
        self.device = torch.device(device)
        self.max_length = max_length
        self.special_tokens = CLIP_TOKENS if special_tokens is None else special_tokens
        self.enable_attention_masks = enable_attention_masks
        self.zero_out_masked = zero_out_masked
        self.layer_norm_hidden_state = layer_norm_hidden_state
        self.return_projected_pooled = return_projected_pooled
        self.return_attention_masks = return_attention_masks
        self.execution_device: torch.device | None = None
        self.layer: Any = layer
        self.layer_idx: int | None = None
        if layer == "hidden":
            self.set_clip_options({"layer": layer_idx})
        self.options_default = (self.layer, self.layer_idx, self.return_projected_pooled)

    def set_clip_options(self, options: Mapping[str, Any]) -> None:
        """Choose ``layer`` (number from the end, negative, or a list), ``projected_pooled`` and ``execution_device``.

        A layer beyond the model's depth means the last.
        """
        self.return_projected_pooled = options.get("projected_pooled", self.return_projected_pooled)
        self.execution_device = options.get("execution_device", self.execution_device)
        wanted = options.get("layer", self.layer_idx)
        if isinstance(self.layer, list) or self.layer == "all":
            return
        if isinstance(wanted, list):
            self.layer = wanted
        elif wanted is None or abs(wanted) > self.num_layers:
            self.layer = "last"
        else:
            self.layer, self.layer_idx = "hidden", wanted

    def reset_clip_options(self) -> None:
        """Back to the family's choice."""
        self.layer, self.layer_idx, self.return_projected_pooled = self.options_default
        self.execution_device = None

    def forward(self, tokens: list[list[Any]]) -> tuple[Any, ...]:
        """(hidden states float32 chunks x tokens x width, pooled or None[, {"attention_mask"}]).

        Of several layers, the states are chunks x layers x tokens x width.
        """
        device = self.execution_device or self.transformer.get_input_embeddings().weight.device
        embeds, mask, num_tokens, embeds_info = self.process_tokens(tokens, device)
        several = isinstance(self.layer, list) or self.layer == "all"
        last, chosen, projected, pooled = self.transformer(
            embeds,
            num_tokens,
            mask if self.enable_attention_masks else None,
            intermediate_output=self.layer if several else self.layer_idx,
            final_layer_norm_intermediate=self.layer_norm_hidden_state,
            embeds_info=embeds_info,
        )
        states = (last if self.layer == "last" else chosen).float()
        if self.zero_out_masked:
            states = states * mask.unsqueeze(-1).float()
        pooled = projected if self.return_projected_pooled and projected is not None else pooled
        pooled = None if pooled is None else pooled.float()
        return (states, pooled, {"attention_mask": mask}) if self.return_attention_masks else (states, pooled)

    def encode(self, tokens: list[list[Any]]) -> tuple[Any, ...]:
        """Encode chunks of token ids (or embedding vectors): what :meth:`forward` returns."""
        return self(tokens)

    def process_tokens(
        self, tokens: list[list[Any]], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, list[int], list[dict[str, Any]]]:
        """What :func:`comfy.text.token_embedding.embed_tokens` gives: embeddings, attention mask, tokens per chunk, what was put in."""
        return embed_tokens(self.transformer, self.special_tokens, tokens, device)

    def generate(
        self,
        tokens: Sequence[Sequence[tuple[Any, ...]]],
        do_sample: bool,
        max_length: int,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repetition_penalty: float,
        seed: int | None,
        presence_penalty: float = 0.0,
    ) -> list[int]:
        """The ids that the model says after *tokens* (chunks of (token, weight), of which the first counts).

        Options: :class:`comfy.text.generation.Sampling`; without *seed* it is 0. Raises ``ValueError`` for a model that reads only.
        """
        if not hasattr(self.transformer, "logits"):
            raise ValueError(f"{type(self.transformer).__name__} is a text encoder that reads only; load a language model to generate text")
        stops = self.transformer.stop_tokens()
        device = self.execution_device or self.transformer.get_input_embeddings().weight.device
        given = [token for token, *_ in tokens[0]]
        embeds, _, _, infos = self.process_tokens([given], device)
        ids = token_ids(given, infos, embeds.shape[1]) if self.transformer.WANTS_IDS else ()
        sampling = Sampling(do_sample, temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, seed or 0)
        return generate(self.transformer, embeds, sampling, max_length, stops, infos, ids)

    def load_weights(self, source: WeightSource, what: str = "the text encoder") -> None:
        """Give the text model its weights from *source* (names without prefix, any key style that the model reads).

        Parameters carry ComfyUI's weight names already, so there is no table. Raises ``IncompleteModelError``.
        """
        self.transformer.load_weights(source, self.dtype, what)

    def load_sd(self, sd: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
        """Give the text model the weights of state dict *sd*; returns (missing, unexpected) names, the first always empty.

        Raises ``IncompleteModelError`` when tensors are missing.
        """
        used = self.transformer.load_weights(StateDictSource(sd), self.dtype, "the text encoder")
        return [], sorted(name for name in sd if name not in used)


class SD1CheckpointClipModel(SDClipModel):
    """CLIP-L as Stable Diffusion 1.x uses it: the pooled output is not projected."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, return_projected_pooled=False, dtype=dtype, model_options=model_options)


class SD1ClipModel(torch.nn.Module):
    """A family's text encoder made of one text model, held as ``clip_l`` (or the name given)."""

    def __init__(
        self,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
        clip_name: str = "l",
        clip_model: Any = SD1CheckpointClipModel,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.clip_name = name or clip_name
        self.clip = name or f"clip_{clip_name}"
        options = {**(model_options or {}), "model_name": self.clip}
        kind = options.get(f"{self.clip}_class", clip_model)
        setattr(self, self.clip, kind(device=device, dtype=dtype, model_options=options, **kwargs))
        self.dtypes = {dtype} - {None}

    @property
    def _inner(self) -> Any:
        return getattr(self, self.clip)

    def set_clip_options(self, options: Mapping[str, Any]) -> None:
        """Set options of the text model for the next encoding."""
        self._inner.set_clip_options(options)

    def reset_clip_options(self) -> None:
        """Restore the text model's own options."""
        self._inner.reset_clip_options()

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Encode {short name of the text model: chunks of (token, weight)}: hidden states (1 x tokens x width) and the pooled output."""
        return self._inner.encode_token_weights(token_weight_pairs[self.clip_name])

    def generate(self, tokens: Mapping[str, Any], **options: Any) -> list[int]:
        """The ids that the text model says after *tokens*; *options* are those of :meth:`SDClipModel.generate`."""
        return self._inner.generate(tokens[self.clip_name], **options)

    def load_weights(self, sources: Mapping[str, WeightSource]) -> None:
        """Weights by text model ("clip_l"), see :meth:`SDClipModel.load_weights`."""
        self._inner.load_weights(sources[self.clip], self.clip)

    def load_sd(self, sd: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
        """Load the text model's weights from a state dict; returns (missing, unexpected) names."""
        return self._inner.load_sd(sd)


def sd1_target(parts: Collection[str]) -> ClipTarget:
    """Of CLIP-L alone."""
    return ClipTarget(SD1Tokenizer, SD1ClipModel)
