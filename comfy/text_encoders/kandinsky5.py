"""Prompt encoding for Kandinsky 5: Qwen2.5-VL's states of the tokens, and CLIP-L's pooled output as a vector."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SD1CheckpointClipModel, SDTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text.qwen.conversations import FOR_DIRECTED_PICTURE, FOR_DIRECTED_VIDEO
from comfy.text.qwen.network import QwenTextModel
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD, PART, QwenImageTokenizer, users_part


class Kandinsky5Tokenizer(QwenImageTokenizer):
    """Puts prompts into the conversation about videos; CLIP-L gets them as they are."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data)
        self.llama_template = FOR_DIRECTED_VIDEO
        self.clip_l = SDTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, *arguments: Any, **kwargs: Any) -> dict[str, Any]:
        """{"qwen25_7b": chunks, "l": chunks}."""
        tokens = super().tokenize_with_weights(text, return_word_ids, *arguments, **kwargs)
        return {**tokens, "l": self.clip_l.tokenize_with_weights(text, return_word_ids, **kwargs)}


class Kandinsky5TokenizerImage(Kandinsky5Tokenizer):
    """Puts prompts into the conversation about pictures."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data)
        self.llama_template = FOR_DIRECTED_PICTURE


class Qwen25_7BVLIModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Qwen2.5-VL's hidden states after its last layer, not normalised."""

    MODEL_CLASS, TOKENS, SETTINGS = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}
    LAYER = ("hidden", -1)


class Kandinsky5TEModel(JointTextEncoder):
    """Qwen2.5-VL's states of what the user says, and CLIP-L's pooled output."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        options = dict(model_options or {})
        self.qwen25_7b = Qwen25_7BVLIModel(device=device, dtype=dtype, model_options={**options, "model_name": PART})
        self.clip_l = SD1CheckpointClipModel(device=device, dtype=dtype, model_options={**options, "model_name": "clip_l"})
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x width, pooled 1 x width, {"attention_mask"} where some token is padding)."""
        encoded = self.qwen25_7b.encode_token_weights(token_weight_pairs[PART])
        states, _, extra = users_part(encoded, token_weight_pairs[PART][0])
        return states, self.clip_l.encode_token_weights(token_weight_pairs["l"])[1], extra


def te(**ignored: Any) -> Any:
    """A maker of :class:`Kandinsky5TEModel`. What the models are kept in, their files say."""
    return Kandinsky5TEModel


def kandinsky5_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen2.5-VL and CLIP-L, for videos."""
    return ClipTarget(Kandinsky5Tokenizer, te())


def kandinsky5_image_target(parts: Collection[str]) -> ClipTarget:
    """The same for pictures."""
    return ClipTarget(Kandinsky5TokenizerImage, te())
