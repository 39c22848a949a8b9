"""PixelDiT's text encoder: Gemma 2, told to improve a prompt; of its states of that the first and the last 299 count."""

from __future__ import annotations

import ast
import functools
import importlib.util
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.supported_models_base import ClipTarget
from comfy.text.gemma import GEMMA_2_2B, GemmaTextModel
from comfy.text_encoders.lumina2 import LuminaModel, LuminaTokenizer
from comfy.text_encoders.published_model import PublishedTextModel

PART = "gemma2_2b"
WINDOW = 300
BEGINS = 'Given a user prompt, generate an "Enhanced prompt"'


@functools.cache
def instruction() -> str:
    """What comes before a prompt: the instruction that Sana was trained with, as diffusers has it, in PixelDiT's spelling.

    It is a default value in a module whose import takes seconds, so it is read from that module's text. Raises ``LookupError`` where
    diffusers has it no more.
    """
    found = importlib.util.find_spec("diffusers")
    folder = next(iter(found.submodule_search_locations or ()), "") if found is not None else ""
    text = (pathlib.Path(folder) / "pipelines" / "sana" / "pipeline_sana.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == "__call__":
            defaults = dict(zip([one.arg for one in reversed(node.args.args)], reversed(node.args.defaults)))
            lines = ast.literal_eval(defaults["complex_human_instruction"])
            return "\n".join(lines).replace("'Enhanced prompt'", '"Enhanced prompt"')
    raise LookupError("diffusers has no Sana pipeline with the instruction that PixelDiT's prompts need; install the pinned diffusers")


class PixelDiTGemma2Tokenizer(LuminaTokenizer):
    """Puts the instruction before prompts, and fills both up to a fixed length, beyond which they are cut off. Weights in parentheses are
    plain text."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"gemma2_2b": one chunk of (token, weight)}; of an empty text, padding alone."""
        options = {name: value for name, value in kwargs.items() if name not in ("disable_weights", "min_length")}
        if not text.strip():
            return super().tokenize_with_weights("", return_word_ids, **{**options, "disable_weights": True, "min_length": WINDOW})
        before = instruction()
        inner: Any = getattr(self, PART)
        length = len(inner.tokenizer(before)["input_ids"]) + WINDOW - 2
        whole = text if text.startswith(BEGINS) else before + text
        tokens = super().tokenize_with_weights(whole, return_word_ids, **{**options, "disable_weights": True, "min_length": length})
        return {**tokens, PART: [tokens[PART][0][:length]]}


class PixelDiTGemma2_2BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Gemma 2 2B's last states."""

    MODEL_CLASS, SIZES, TOKENS = GemmaTextModel, GEMMA_2_2B, {"start": 2, "pad": 0}
    SETTINGS = {"layer_norm_hidden_state": False}


class PixelDiTGemma2TE(LuminaModel):
    """The first state and the last 299, and a mask of them."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device, dtype, model_options, PART, PixelDiTGemma2_2BModel)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x at most 300 x width, None, {"attention_mask"})."""
        states, pooled, *more = super().encode_token_weights(token_weight_pairs)
        if states.shape[1] <= WINDOW:
            return (states, pooled, *more)
        extra = dict(more[0]) if more else {}
        if "attention_mask" in extra:
            extra["attention_mask"] = _ends(extra["attention_mask"])
        return (_ends(states), pooled, extra) if more else (_ends(states), pooled)


def _ends(states: torch.Tensor) -> torch.Tensor:
    """The first and the last 299 of *states* (B x tokens, …)."""
    return torch.cat((states[:, :1], states[:, 1 - WINDOW :]), dim=1)


def pixeldit_te(**ignored: Any) -> type[PixelDiTGemma2TE]:
    """:class:`PixelDiTGemma2TE`. Its dtype, its file says."""
    return PixelDiTGemma2TE


def pixeldit_target(parts: Collection[str]) -> ClipTarget:
    """Of Gemma 2."""
    return ClipTarget(PixelDiTGemma2Tokenizer, PixelDiTGemma2TE)
