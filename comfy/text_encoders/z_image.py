"""Z-Image's text encoder: Qwen 3 with four billion parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.network import QwenTextModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.conversation import ConversationTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD, QwenWords

PART = "qwen3_4b"
WANTED = WantedTokenizer(part=PART, folder="qwen25_tokenizer", repository="Qwen/Qwen3-4B")
CONVERSATION = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class Qwen3Tokenizer(QwenWords):
    """Qwen's tokenizer, with embeddings of the text model's width."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(WANTED, 2560, tokenizer_data, embedding_directory)


class ZImageTokenizer(ConversationTokenizer):
    """Puts prompts into a conversation. Weights in parentheses are plain text."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=Qwen3Tokenizer)
        self.llama_template = CONVERSATION


class Qwen3_4BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Qwen 3's hidden states before its last layer."""

    MODEL_CLASS, TOKENS, LAYER, SETTINGS = QwenTextModel, {"pad": PAD}, ("hidden", -2), {"layer_norm_hidden_state": False}


class ZImageTEModel(sd1_clip.SD1ClipModel):
    """The states of the whole conversation, and which tokens are no padding."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=Qwen3_4BModel, model_options=model_options)


def z_image_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen 3 alone."""
    return ClipTarget(ZImageTokenizer, ZImageTEModel)
