"""OmniGen2's text encoder: Qwen 2.5 with three billion parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.network import QwenTextModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD, QwenWords

PART = "qwen25_3b"
WANTED = WantedTokenizer(part=PART, folder="qwen25_tokenizer", repository="Qwen/Qwen2.5-VL-3B-Instruct")
ABOUT = "You are a helpful assistant that generates high-quality images based on user instructions."
CONVERSATION = f"<|im_start|>system\n{ABOUT}<|im_end|>\n<|im_start|>user\n{{}}<|im_end|>\n"


class Qwen25_3BTokenizer(QwenWords):  # noqa: N801 - ComfyUI's name
    """Qwen's tokenizer. There are no embeddings for it."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(WANTED, 2048, tokenizer_data)


class Omnigen2Tokenizer(sd1_clip.SD1Tokenizer):
    """Puts prompts into the conversation that OmniGen2 was trained with, in which words in parentheses have weights."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=Qwen25_3BTokenizer)
        self.llama_template = CONVERSATION

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, llama_template: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """{"qwen25_3b": chunks of (token, weight)}; *llama_template* has ``{}`` for the text."""
        spoken = (self.llama_template if llama_template is None else llama_template).format(text)
        return super().tokenize_with_weights(spoken, return_word_ids, **kwargs)


class Qwen25_3BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Qwen 2.5's last states."""

    MODEL_CLASS, TOKENS, SETTINGS = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}


class Omnigen2Model(sd1_clip.SD1ClipModel):
    """The states of the whole conversation, and which tokens are no padding."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=Qwen25_3BModel, model_options=model_options)


def te(**ignored: Any) -> type[Omnigen2Model]:
    """:class:`Omnigen2Model`. Its dtype, its file says."""
    return Omnigen2Model


def omnigen2_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen 2.5 alone."""
    return ClipTarget(Omnigen2Tokenizer, Omnigen2Model)
