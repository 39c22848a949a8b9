"""Ovis-Image's text encoder: the Qwen 3 of Ovis 2.5, which has two billion parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.qwen.network import QwenTextModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.conversation import ConversationTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD

PART = "qwen3_2b"
WORDS = 284  # tokens that a prompt is filled up to
BACKGROUND, COLON = 4004, 25  # the last tokens before the user's words
CONVERSATION = (
    "<|im_start|>user\nDescribe the image by detailing the color, quantity, text, shape, size, texture, spatial relationships of the "
    "objects and background: {}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


class Qwen3Tokenizer(OneChunkTokenizer):
    """Qwen's tokenizer without marks around the text."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            WantedTokenizer(PART, "qwen25_tokenizer", "Qwen/Qwen3-1.7B"),
            tokenizer_data,
            embedding_size=2048,
            has_start_token=False,
            has_end_token=False,
            min_length=WORDS,
            pad_token=PAD,
        )


class OvisTokenizer(ConversationTokenizer):
    """Puts prompts into a conversation. Weights in parentheses are plain text."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=Qwen3Tokenizer)
        self.llama_template = CONVERSATION


class Ovis25_2BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Its last states, zeros where there is padding."""

    MODEL_CLASS, TOKENS, SETTINGS = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}
    GIVES_MASK, ZEROS_MASKED = False, True


class OvisTEModel(sd1_clip.SD1ClipModel):
    """The states from the last token before the user's words on."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=Ovis25_2BModel, model_options=model_options)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any], template_end: int = -1) -> tuple[Any, ...]:
        """(states 1 x tokens x width, None, {}). *template_end*: the first token to keep; -1: found by the template's last words."""
        states, pooled, *_ = super().encode_token_weights(token_weight_pairs)
        tokens = [token for token, *_ in token_weight_pairs[PART][0]]
        if template_end == -1:
            template_end = tokens.index(BACKGROUND) if BACKGROUND in tokens else -1
            follows = template_end + 1 < states.shape[1] and tokens[template_end + 1] == COLON
            template_end += int(follows)
        return states[:, template_end:], pooled, {}


def te(**ignored: Any) -> Any:
    """:class:`OvisTEModel`. What Qwen is kept in, its file says, so ``dtype_llama`` needs no passing on."""
    return OvisTEModel


def ovis_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen 3."""
    return ClipTarget(OvisTokenizer, OvisTEModel)
