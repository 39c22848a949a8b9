"""Prompt encoding for Stable Diffusion 1.x: the text model with its options, and how token weights act on its output."""

import logging
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.model_management
import comfy.ops
from comfy.families.clip_text import ClipTextTransformer, load_clip_text
from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.loading.embeddings import expand_directory_list, load_embed
from comfy.text.clip_tokenizer import SD1Tokenizer, SDTokenizer
from comfy.text.prompt_weights import escape_important, parse_parentheses, token_weights, unescape_important

log = logging.getLogger(__name__)

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
            to_encode.append(gen_empty_tokens(self.special_tokens, max(map(len, chunks), default=0)))
        out, pooled, *extras = self.encode(to_encode)
        device = comfy.model_management.intermediate_device()
        if weighted:
            for chunk, states in zip(token_weight_pairs, out):
                _weight_states(states, out[-1], [pair[1] for pair in chunk])
        states = torch.cat(list(out[: len(chunks)].split(1)), dim=-2) if chunks else out[-1:]
        result = (states.to(device), None if pooled is None else pooled[:1].to(device))
        return result if not extras else (*result, self._extra_outputs(extras[0], len(chunks), device))

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

    ``textmodel_json_config`` is a :class:`ClipTextConfig` (None: CLIP-L's). Weights are meta tensors until :meth:`load_weights`.
    """

    LAYERS = ("last", "pooled", "hidden", "all")

    def __init__(
        self,
        device: Any = "cpu",
        max_length: int = 77,
        freeze: bool = True,
        layer: str = "last",
        layer_idx: int | None = None,
        textmodel_json_config: ClipTextConfig | None = None,
        dtype: torch.dtype | None = None,
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
        self.dtype = torch.float32 if dtype is None else dtype
        operations = options.get("custom_operations") or comfy.ops.pick_operations(self.dtype, torch.float32)
        config = options.get(f"{options.get('model_name', 'clip_l')}_model_config") or textmodel_json_config or CLIP_L
        self.transformer = ClipTextTransformer(config, operations)
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
        """(hidden states float32 chunks x tokens x width, pooled or None[, {"attention_mask"}])."""
        device = self.execution_device or self.transformer.get_input_embeddings().weight.device
        embeds, mask, num_tokens = self.process_tokens(tokens, device)
        several = isinstance(self.layer, list) or self.layer == "all"
        last, chosen, projected, pooled = self.transformer(
            embeds,
            num_tokens,
            mask if self.enable_attention_masks else None,
            intermediate_output=self.layer if several else self.layer_idx,
            final_layer_norm_intermediate=self.layer_norm_hidden_state,
        )
        states = (last if self.layer == "last" else chosen).float()
        if self.zero_out_masked:
            states = states * mask.unsqueeze(-1).float()
        pooled = projected if self.return_projected_pooled and projected is not None else pooled
        return (states, pooled.float(), {"attention_mask": mask}) if self.return_attention_masks else (states, pooled.float())

    def encode(self, tokens: list[list[Any]]) -> tuple[Any, ...]:
        """Encode chunks of token ids (or embedding vectors): what :meth:`forward` returns."""
        return self(tokens)

    def process_tokens(self, tokens: list[list[Any]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """(embeddings float32, attention mask, tokens up to and with the end token) of chunks that may hold embedding vectors."""
        rows = [self._embed_chunk(chunk, device) for chunk in tokens]
        masks = [mask for _, mask in rows]
        return torch.cat([embeds for embeds, _ in rows]), torch.tensor(masks, device=device), [sum(mask) for mask in masks]

    def _embed_chunk(self, chunk: list[Any], device: torch.device) -> tuple[torch.Tensor, list[int]]:
        """The chunk's embeddings 1 x tokens x width, and its mask: ones up to and with the end token."""
        table = self.transformer.get_input_embeddings()
        width = table.weight.shape[-1]
        ids: list[Any] = []
        mask: list[int] = []
        vectors: list[tuple[int, torch.Tensor]] = []
        ended = False
        for token in chunk:
            if not isinstance(token, numbers.Integral):
                vectors.append((len(mask), token.reshape(1, -1, token.shape[-1])))
                if token.shape[-1] == width:
                    ids += [self.special_tokens["pad"]] * vectors[-1][1].shape[1]
                    mask += [1] * vectors[-1][1].shape[1]
                continue
            ids.append(int(token))
            mask.append(0 if ended else 1)
            ended = ended or token == self.special_tokens["end"]
        unfit = sum(vector.shape[1] for _, vector in vectors if vector.shape[-1] != width)
        ids += [self.special_tokens["pad"]] * unfit
        mask += [0] * unfit
        embeds = table(torch.tensor([ids], device=device), out_dtype=torch.float32)
        for position, vector in vectors:
            if vector.shape[-1] == width:
                embeds[:, position : position + vector.shape[1]] = vector.to(embeds)
            else:
                log.warning("an embedding of width %d does not fit a text model of width %d; it is left out", vector.shape[-1], width)
        return embeds, mask

    def load_weights(self, source: WeightSource, what: str = "the text encoder") -> None:
        """Give the text model its weights from *source* (names without prefix, either key style).

        Parameters carry ComfyUI's weight names already, so there is no table. Raises ``IncompleteModelError``.
        """
        load_clip_text(self.transformer, source, self.dtype, what)

    def load_sd(self, sd: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
        """Give the text model the weights of state dict *sd*; returns (missing, unexpected) names, the first always empty.

        Raises ``IncompleteModelError`` when tensors are missing.
        """
        used = load_clip_text(self.transformer, StateDictSource(sd), self.dtype, "the text encoder")
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

    def load_weights(self, sources: Mapping[str, WeightSource]) -> None:
        """Weights by text model ("clip_l"), see :meth:`SDClipModel.load_weights`."""
        self._inner.load_weights(sources[self.clip], self.clip)

    def load_sd(self, sd: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
        """Load the text model's weights from a state dict; returns (missing, unexpected) names."""
        return self._inner.load_sd(sd)
