"""Qwen-Image's text encoder: Qwen2.5-VL, which also looks at the pictures that an instruction is about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.qwen.conversations import ABOUT_ONE_PICTURE, FROM_TEXT
from comfy.text.qwen.network import QwenTextModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel

PART = "qwen25_7b"
PAD, START, PICTURE = 151643, 151644, 151655  # <|endoftext|>, <|im_start|>, <|image_pad|>
USER = (872, 198)  # "user" and a line break
WANTED = WantedTokenizer(part=PART, folder="qwen25_tokenizer", repository="Qwen/Qwen2.5-VL-7B-Instruct")
WRITTEN_OUT = ("<|im_start|>", "<|start_header_id|>")  # how a text begins that needs no template


class QwenWords(OneChunkTokenizer):
    """Qwen's tokenizer: one chunk of any length, without marks around it."""

    def __init__(
        self, wanted: WantedTokenizer, width: int, tokenizer_data: Mapping[str, Any] | None, embedding_directory: Any = None
    ) -> None:
        super().__init__(
            wanted,
            tokenizer_data,
            embedding_directory=embedding_directory,
            embedding_size=width,
            has_start_token=False,
            has_end_token=False,
            min_length=1,
            pad_token=PAD,
        )


class Qwen25_7BVLITokenizer(QwenWords):  # noqa: N801 - ComfyUI's name
    """Qwen2.5-VL's. There are no embeddings for it."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(WANTED, 3584, tokenizer_data)


class QwenImageTokenizer(sd1_clip.SD1Tokenizer):
    """Puts prompts into the conversation that Qwen-Image was trained with. Weights in parentheses are plain text."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=Qwen25_7BVLITokenizer)
        self.llama_template = FROM_TEXT
        self.llama_template_images = ABOUT_ONE_PICTURE

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        llama_template: str | None = None,
        images: Sequence[torch.Tensor] = (),
        prevent_empty_text: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """{"qwen25_7b": chunks of (token, weight)}, in which each of *images* (B x height x width x 3) takes the place of a picture's mark.

        *llama_template* has ``{}`` for the text. A text that begins with a mark of a conversation is taken as it is.
        """
        if prevent_empty_text and text == "":
            text = " "
        if not text.startswith(WRITTEN_OUT):
            own = self.llama_template_images if len(images) else self.llama_template
            text = (own if llama_template is None else llama_template).format(text)
        tokens = super().tokenize_with_weights(text, return_word_ids, **{**kwargs, "disable_weights": True})
        pictures = iter(images)
        for chunk in tokens[PART]:
            for index, token in enumerate(chunk):
                if token[0] == PICTURE and (picture := next(pictures, None)) is not None:
                    chunk[index] = ({"type": "image", "data": picture, "original_type": "image"}, *token[1:])
        return tokens


class Qwen25_7BVLIModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Qwen2.5-VL's hidden states after its last layer."""

    MODEL_CLASS, TOKENS, SETTINGS = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}


class QwenImageTEModel(sd1_clip.SD1ClipModel):
    """The states of the user's part of the conversation and what follows; a mask where some tokens are padding."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=Qwen25_7BVLIModel, model_options=model_options)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any], template_end: int = -1) -> tuple[Any, ...]:
        """(states 1 x tokens x width, None, {"attention_mask"} or {}). *template_end*: the first token to keep; -1: found by the marks."""
        return users_part(super().encode_token_weights(token_weight_pairs), token_weight_pairs[PART][0], template_end)


def users_part(encoded: tuple[Any, ...], chunk: Sequence[Any], template_end: int = -1) -> tuple[Any, ...]:
    """*encoded* (states, pooled output, extras with a mask) of the tokens of *chunk* from the user's words on, see
    :class:`QwenImageTEModel`."""
    states, pooled, extra = encoded
    if template_end == -1:
        template_end = template_end_of([token[0] for token in chunk])
    mask = extra["attention_mask"][:, template_end:]
    others = {name: value for name, value in extra.items() if name != "attention_mask"}
    return states[:, template_end:], pooled, others if mask.all() else {**others, "attention_mask": mask}


def template_end_of(tokens: Sequence[Any]) -> int:
    """Where the user's words begin: behind the second mark of a speaker (or the first, if there is but one) and the speaker's name."""
    marks = [index for index, token in enumerate(tokens) if isinstance(token, int) and token == START][:2]
    if not marks:
        return -1
    named = len(tokens) > marks[-1] + 3 and tuple(tokens[marks[-1] + 1 : marks[-1] + 3]) == USER
    return marks[-1] + 3 if named else marks[-1]


def qwen_image_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen2.5-VL alone."""
    return ClipTarget(QwenImageTokenizer, QwenImageTEModel)
