"""Qwen 3.5 as a text encoder, and the conversation in which it answers; it looks at pictures where its file has eyes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.qwen.conversations import ONE_PICTURE
from comfy.text.qwen.hybrid import HybridTextModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen3vl import CONVERSATION, OPENED, pictures_of

PAD, PICTURE = 248044, 248056  # <|endoftext|>, <|image_pad|>
NO_THOUGHT = "<think>\n</think>\n"
USUAL = "qwen35_2b"
WIDTHS = {"qwen35_08b": 1024, USUAL: 2048, "qwen35_4b": 2560, "qwen35_9b": 4096, "qwen35_27b": 5120}
SIZES = {"qwen35_08b": "0.8B", USUAL: "2B", "qwen35_4b": "4B", "qwen35_9b": "9B", "qwen35_27b": "27B"}


class Qwen35Tokenizer(OneChunkTokenizer):
    """Its tokenizer: one chunk of any length, without marks around it."""

    def __init__(
        self,
        embedding_directory: Any = None,
        tokenizer_data: Mapping[str, Any] | None = None,
        embedding_size: int = 2048,
        embedding_key: str = USUAL,
    ) -> None:
        super().__init__(
            WantedTokenizer(embedding_key, "qwen35_tokenizer", f"Qwen/Qwen3.5-{SIZES[embedding_key]}"),
            tokenizer_data,
            embedding_directory=embedding_directory,
            embedding_size=embedding_size,
            has_start_token=False,
            has_end_token=False,
            min_length=1,
            pad_token=PAD,
        )


class Qwen35ImageTokenizer(sd1_clip.SD1Tokenizer):
    """Puts prompts into a conversation. Weights in parentheses are plain text."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None, model_type: str = USUAL) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=model_type, tokenizer=_words_of(model_type))
        self.llama_template = CONVERSATION
        self.llama_template_images = CONVERSATION.format(ONE_PICTURE + "{}")

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        llama_template: str | None = None,
        images: Sequence[torch.Tensor] = (),
        prevent_empty_text: bool = False,
        thinking: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """{name of the text model: chunks of (token, weight)}, in which each of *images* (B x height x width x 3, or each of the batch
        ``image``) takes the place of a picture's mark.

        *llama_template* has ``{}`` for the text. Without *thinking* the answer begins with an empty thought. A text that begins with a
        mark of a conversation is taken as it is.
        """
        pictures = pictures_of(images, kwargs.get("image"))
        text = " " if prevent_empty_text and text == "" else text
        if not text.startswith(OPENED):
            own = self.llama_template_images.replace(ONE_PICTURE, ONE_PICTURE * len(pictures), 1) if pictures else self.llama_template
            text = (own if llama_template is None else llama_template).format(text) + ("" if thinking else NO_THOUGHT)
        tokens = super().tokenize_with_weights(text, return_word_ids, **{**kwargs, "disable_weights": True})
        left = iter(pictures)
        for chunk in tokens[self.clip_name]:
            for index, token in enumerate(chunk):
                if token[0] == PICTURE and (picture := next(left, None)) is not None:
                    chunk[index] = ({"type": "image", "data": picture, "original_type": "image"}, *token[1:])
        return tokens


class Qwen35ClipModel(PublishedTextModel):
    """Its states after the layer before the last."""

    MODEL_CLASS, TOKENS, LAYER, SETTINGS = HybridTextModel, {"pad": PAD}, ("hidden", -2), {"layer_norm_hidden_state": False}


class Qwen35TEModel(sd1_clip.SD1ClipModel):
    """The states of the whole conversation, and which tokens are no padding."""

    def __init__(
        self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None, model_type: str = USUAL
    ) -> None:
        super().__init__(device=device, dtype=dtype, name=model_type, clip_model=Qwen35ClipModel, model_options=model_options)


def _words_of(model_type: str) -> Callable[..., Qwen35Tokenizer]:
    """A maker of the tokenizer of *model_type*."""

    def made(**kwargs: Any) -> Qwen35Tokenizer:
        return Qwen35Tokenizer(**{"embedding_size": WIDTHS[model_type], "embedding_key": model_type, **kwargs})

    return made


def tokenizer(model_type: str = USUAL) -> Callable[..., Qwen35ImageTokenizer]:
    """A maker of :class:`Qwen35ImageTokenizer` for *model_type*."""

    def made(**kwargs: Any) -> Qwen35ImageTokenizer:
        return Qwen35ImageTokenizer(**kwargs, model_type=model_type)

    return made


def te(model_type: str = USUAL, **ignored: Any) -> Callable[..., Qwen35TEModel]:
    """A maker of :class:`Qwen35TEModel` of *model_type*. Its dtype, its file says."""

    def made(**kwargs: Any) -> Qwen35TEModel:
        return Qwen35TEModel(**kwargs, model_type=model_type)

    return made


def qwen35_target(parts: Collection[str]) -> ClipTarget:
    """Of one Qwen 3.5 alone."""
    (model_type,) = parts
    return ClipTarget(tokenizer(model_type), te(model_type))
