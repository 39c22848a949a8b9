"""Anima's text encoder: Qwen 3 with six hundred million parameters, and the tokens of T5 beside its states."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SD1ClipModel
from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.network import QwenTextModel
from comfy.text.t5_tokenizer import T5Tokenizer
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD, QwenWords

PART = "qwen3_06b"
WANTED = WantedTokenizer(part=PART, folder="qwen25_tokenizer", repository="Qwen/Qwen3-0.6B")


class Qwen3Tokenizer(QwenWords):
    """Qwen's tokenizer."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(WANTED, 1024, tokenizer_data, embedding_directory)


class T5XXLTokenizer(T5Tokenizer):
    """T5's tokenizer, without padding."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, 1)


class AnimaTokenizer:
    """Both tokenizers; results are keyed "qwen3_06b", whose weights are all 1, and "t5xxl"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        self.qwen3_06b = Qwen3Tokenizer(embedding_directory, tokenizer_data)
        self.t5xxl = T5XXLTokenizer(embedding_directory, tokenizer_data)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"qwen3_06b": chunks, "t5xxl": chunks} of (token, weight)."""
        plain = self.qwen3_06b.tokenize_with_weights(text, return_word_ids, **kwargs)
        return {
            PART: [[(token, 1.0, *others) for token, _, *others in chunk] for chunk in plain],
            "t5xxl": self.t5xxl.tokenize_with_weights(text, return_word_ids, **kwargs),
        }

    def untokenize(self, token_weight_pair: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], str]]:
        """Each (token, weight) of T5 with the token's text."""
        return self.t5xxl.untokenize(token_weight_pair)

    def state_dict(self) -> dict[str, Any]:
        """What a saved text encoder must carry for its tokenizers: nothing."""
        return {}

    def decode(self, token_ids: Any, skip_special_tokens: bool = True) -> str | list[str]:
        """The text of Qwen's vocabulary ids."""
        return self.qwen3_06b.decode(token_ids, skip_special_tokens=skip_special_tokens)


class Qwen3_06BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Qwen 3's last hidden states."""

    MODEL_CLASS, TOKENS, SETTINGS = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}


class AnimaTEModel(SD1ClipModel):
    """Qwen's states; T5's tokens and their weights as ``t5xxl_ids`` and ``t5xxl_weights``."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=Qwen3_06BModel, model_options=model_options)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x width, None, extras) for chunks keyed "qwen3_06b" and "t5xxl"; of the latter the first counts."""
        states, pooled, extras = super().encode_token_weights(token_weight_pairs)
        chunk = token_weight_pairs["t5xxl"][0]
        ids = torch.tensor([token for token, *_ in chunk], dtype=torch.int)
        return states, pooled, {**extras, "t5xxl_ids": ids, "t5xxl_weights": torch.tensor([weight for _, weight, *_ in chunk])}


def te(**ignored: Any) -> Any:
    """:class:`AnimaTEModel`. What Qwen is kept in, its file says, so ``dtype_llama`` needs no passing on."""
    return AnimaTEModel


def anima_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen 3."""
    return ClipTarget(AnimaTokenizer, AnimaTEModel)
