"""Prompt encoding for HunyuanVideo 1.5; HunyuanVideo 1's names are :mod:`comfy.placeholders`."""

from collections.abc import Collection, Mapping
from typing import Any

from comfy.placeholders import placeholders
from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.conversations import FOR_VIDEO
from comfy.text_encoders.hunyuan_image import HunyuanImageTokenizer, te

BYT5 = "byt5_small"


class HunyuanVideo15Tokenizer(HunyuanImageTokenizer):
    """Puts prompts into the conversation that HunyuanVideo 1.5 was trained with. An empty one is a blank."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data)
        self.llama_template = FOR_VIDEO

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, *arguments: Any, **kwargs: Any) -> dict[str, Any]:
        """Those of Qwen and, with texts in quotes, of ByT5."""
        return super().tokenize_with_weights(text or " ", return_word_ids, *arguments, **kwargs)


def hunyuan_video_15_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen2.5-VL, and ByT5 if it is there."""
    return ClipTarget(HunyuanVideo15Tokenizer, te(byt5=BYT5 in parts))


__getattr__, __dir__ = placeholders(
    __name__,
    "Hunyuan Video models",
    "llama_detect() LLAMA3Tokenizer:comfy.sd1_clip.SDTokenizer LLAMAModel:comfy.sd1_clip.SDClipModel HunyuanVideoTokenizer:object "
    "HunyuanVideoClipModel hunyuan_video_clip()",
)
