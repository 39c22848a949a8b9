"""The text encoder of HunyuanVideo 1.5: Qwen2.5-VL, and ByT5 for texts that are to be written in the picture.

Hunyuan-Image's names of them are here, where ComfyUI has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import ByT5Tokenizer

from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_sizes import BYT5_SMALL_GLYPH
from comfy.sd1_clip import SDTokenizer
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text.qwen.network import QwenTextModel
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD, PART, QwenImageTokenizer, users_part

WRITTEN = "byt5"  # under which the tokens of texts to be written go
QUOTES = (r'"(.*?)"', r"‘(.*?)’", r"“(.*?)”")
TOKENS: Mapping[str, int | None] = {"end": 1, "pad": 0}


class Bytes:
    """Makes ByT5's tokenizer, which needs no file: a token is a byte."""

    @staticmethod
    def from_pretrained(path: Any = None, **ignored: Any) -> Any:
        """The tokenizer."""
        return ByT5Tokenizer()


class ByT5SmallTokenizer(SDTokenizer):
    """The bytes of a text and the end token."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            None,
            tokenizer_class=Bytes,
            embedding_directory=embedding_directory,
            embedding_size=BYT5_SMALL_GLYPH.hidden_size,
            embedding_key="byt5_small",
            tokenizer_data=tokenizer_data,
            pad_with_end=False,
            has_start_token=False,
            pad_to_max_length=False,
            max_length=99999999,
            min_length=1,
        )


class HunyuanImageTokenizer(QwenImageTokenizer):
    """Qwen's conversation, and the texts in quotes for ByT5."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data)
        self.byt5 = ByT5SmallTokenizer(embedding_directory, tokenizer_data)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, *arguments: Any, **kwargs: Any) -> dict[str, Any]:
        """{"qwen25_7b": chunks}, and with texts in quotes {"byt5": chunks}."""
        tokens = super().tokenize_with_weights(text, return_word_ids, *arguments, **kwargs)
        written = "".join(f'Text "{quoted}". ' for quote in QUOTES for quoted in re.findall(quote, text))
        return {**tokens, WRITTEN: self.byt5.tokenize_with_weights(written, return_word_ids, **kwargs)} if written else tokens


class Qwen25_7BVLIModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Qwen2.5-VL's hidden states before its last two layers."""

    MODEL_CLASS, TOKENS, SETTINGS = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}
    LAYER = ("hidden", -3)


class ByT5SmallModel(PublishedTextModel):
    """ByT5's last states; padding is zero."""

    MODEL_CLASS, SIZES, TOKENS = T5Transformer, BYT5_SMALL_GLYPH, TOKENS
    GIVES_MASK, ZEROS_MASKED = False, True
    NAME = "byt5_small"


class HunyuanImageTEModel(JointTextEncoder):
    """Qwen2.5-VL's states of what the user says; ByT5's as ``conditioning_byt5small``, where something is to be written.

    *byt5*: whether there is ByT5; without it such texts are not passed on.
    """

    def __init__(
        self, byt5: bool = True, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        options = dict(model_options or {})
        self.qwen25_7b = Qwen25_7BVLIModel(device=device, dtype=dtype, model_options={**options, "model_name": PART})
        self.byt5_small = ByT5SmallModel(device=device, dtype=dtype, model_options=options) if byt5 else None
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x width, None, {"attention_mask", "conditioning_byt5small"} as far as there are)."""
        encoded = self.qwen25_7b.encode_token_weights(token_weight_pairs[PART])
        states, pooled, extra = users_part(encoded, token_weight_pairs[PART][0])
        if self.byt5_small is not None and WRITTEN in token_weight_pairs:
            written, *_ = self.byt5_small.encode_token_weights(token_weight_pairs[WRITTEN])
            extra = {**extra, "conditioning_byt5small": written}
        return states, pooled, extra


def te(byt5: bool = True, **ignored: Any) -> Any:
    """A maker of :class:`HunyuanImageTEModel`. What the models are kept in, their files say."""

    def make(**arguments: Any) -> HunyuanImageTEModel:
        return HunyuanImageTEModel(byt5, **arguments)

    return make
