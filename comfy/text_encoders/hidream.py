"""Prompt encoding for HiDream: CLIP's pooled outputs, T5-XXL's hidden states and those of all layers of Llama 3.1."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SDClipModel
from comfy.sdxl_clip import SDXLClipG
from comfy.supported_models_base import ClipTarget
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text_encoders import hunyuan_video
from comfy.text_encoders.sd3_clip import CLIP_G_WIDTH, CLIP_L_WIDTH, T5_WIDTH, SD3Tokenizer, T5XXLModel, T5XXLTokenizer, zeros

TOKENS = 128
LLAMA_LAYERS, LLAMA_WIDTH = 32, 4096
LLAMA_PAD = 128009


class LLAMA3Tokenizer(hunyuan_video.LLAMA3Tokenizer):
    """Llama's tokenizer: a start token, no end token, filled up to 128 tokens."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, min_length=TOKENS, pad_token=LLAMA_PAD)


class LLAMAModel(hunyuan_video.LLAMAModel):
    """The states before and after each layer of Llama 3.1, the last normalised."""

    TOKENS = {"start": hunyuan_video.LLAMA_START, "pad": LLAMA_PAD}
    LAYER = ("all", None)


class HiDreamTokenizer(SD3Tokenizer):
    """Results are keyed "g", "l", "t5xxl" (the first 128 tokens) and "llama" (none without Llama)."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data)
        parts = (tokenizer_data or {}).get("parts")
        self.llama = LLAMA3Tokenizer(embedding_directory, tokenizer_data) if parts is None or "llama" in parts else None

    @staticmethod
    def _t5_tokenizer(embedding_directory: Any, tokenizer_data: Mapping[str, Any] | None) -> T5XXLTokenizer:
        return T5XXLTokenizer(embedding_directory, tokenizer_data, min_length=TOKENS, max_length=TOKENS)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"g": chunks, "l": chunks, "t5xxl": one chunk, "llama": []}, see :meth:`SDTokenizer.tokenize_with_weights`."""
        tokens = super().tokenize_with_weights(text, return_word_ids, **kwargs)
        llama = [] if self.llama is None else self.llama.tokenize_with_weights(text, return_word_ids, **kwargs)
        return {**tokens, "t5xxl": tokens["t5xxl"][:1], "llama": llama}


class HiDreamTEModel(JointTextEncoder):
    """T5's hidden states, CLIP's pooled outputs side by side, Llama's layers as ``conditioning_llama3``; zeros for what is not there."""

    def __init__(
        self,
        clip_l: bool = True,
        clip_g: bool = True,
        t5: bool = True,
        llama: bool = True,
        dtype_t5: torch.dtype | None = None,
        dtype_llama: torch.dtype | None = None,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = {**(model_options or {}), "model_name": "clip_l"}
        self.clip_l = SDClipModel(device=device, dtype=dtype, model_options=options) if clip_l else None
        self.clip_g = SDXLClipG(device=device, dtype=dtype, model_options=model_options) if clip_g else None
        self.t5xxl = T5XXLModel(device=device, dtype=dtype_t5 or dtype, model_options=model_options, attention_mask=True) if t5 else None
        self.llama = LLAMAModel(device=device, dtype=dtype_llama or dtype, model_options=model_options) if llama else None
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(T5's states 1 x 128 x width, pooled outputs of both CLIPs, {"conditioning_llama3": 1 x layers x tokens x width})."""
        pooled = []
        for part, name, width in ((self.clip_l, "l", CLIP_L_WIDTH), (self.clip_g, "g", CLIP_G_WIDTH)):
            pooled.append(zeros(width) if part is None else part.encode_token_weights(token_weight_pairs[name])[1])
        states = zeros(TOKENS, T5_WIDTH) if self.t5xxl is None else self.t5xxl.encode_token_weights(token_weight_pairs["t5xxl"])[0]
        layers = zeros(LLAMA_LAYERS, 1, LLAMA_WIDTH)
        if self.llama is not None:  # the first of its states are the embeddings
            layers = self.llama.encode_token_weights(token_weight_pairs["llama"])[0][:, 1:]
        return states, torch.cat(pooled, dim=-1), {"conditioning_llama3": layers}


def hidream_clip(clip_l: bool = True, clip_g: bool = True, t5: bool = True, llama: bool = True, **ignored: Any) -> Any:
    """A maker of :class:`HiDreamTEModel` of these parts. What they are kept in, their files say, so dtypes need no passing on."""

    def made(**kwargs: Any) -> HiDreamTEModel:
        return HiDreamTEModel(clip_l, clip_g, t5, llama, **kwargs)

    return made


def hidream_target(parts: Collection[str]) -> ClipTarget:
    """Of any of CLIP-L, CLIP-G, T5-XXL and Llama."""
    return ClipTarget(HiDreamTokenizer, hidream_clip("clip_l" in parts, "clip_g" in parts, "t5xxl" in parts, "llama" in parts))
