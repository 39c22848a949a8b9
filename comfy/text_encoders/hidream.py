"""Prompt encoding for HiDream-I1: CLIP's pooled outputs and T5-XXL's hidden states. Its Llama is not supported: zeros stand for it."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SDClipModel
from comfy.sdxl_clip import SDXLClipG
from comfy.supported_models_base import ClipTarget
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text_encoders.sd3_clip import CLIP_G_WIDTH, CLIP_L_WIDTH, T5_WIDTH, SD3Tokenizer, T5XXLModel, T5XXLTokenizer, zeros

TOKENS = 128
LLAMA_LAYERS, LLAMA_WIDTH = 32, 4096


class HiDreamTokenizer(SD3Tokenizer):
    """Results are keyed "g", "l", "t5xxl" (the first 128 tokens) and "llama" (none)."""

    @staticmethod
    def _t5_tokenizer(embedding_directory: Any, tokenizer_data: Mapping[str, Any] | None) -> T5XXLTokenizer:
        return T5XXLTokenizer(embedding_directory, tokenizer_data, min_length=TOKENS, max_length=TOKENS)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"g": chunks, "l": chunks, "t5xxl": one chunk, "llama": []}, see :meth:`SDTokenizer.tokenize_with_weights`."""
        tokens = super().tokenize_with_weights(text, return_word_ids, **kwargs)
        return {**tokens, "t5xxl": tokens["t5xxl"][:1], "llama": []}


class HiDreamTEModel(JointTextEncoder):
    """T5's hidden states, CLIP's pooled outputs side by side, and zeros for Llama's layers as ``conditioning_llama3``."""

    def __init__(
        self,
        clip_l: bool = True,
        clip_g: bool = True,
        t5: bool = True,
        llama: bool = False,
        dtype_t5: torch.dtype | None = None,
        dtype_llama: torch.dtype | None = None,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if llama:
            raise NotImplementedError("HiDream's Llama 3.1 is not supported; load T5-XXL, CLIP-L and CLIP-G")
        options = {**(model_options or {}), "model_name": "clip_l"}
        self.clip_l = SDClipModel(device=device, dtype=dtype, model_options=options) if clip_l else None
        self.clip_g = SDXLClipG(device=device, dtype=dtype, model_options=model_options) if clip_g else None
        self.t5xxl = T5XXLModel(device=device, dtype=dtype_t5 or dtype, model_options=model_options, attention_mask=True) if t5 else None
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(T5's states 1 x 128 x width, pooled outputs of both CLIPs, {"conditioning_llama3": 1 x layers x 1 x width})."""
        pooled = []
        for part, name, width in ((self.clip_l, "l", CLIP_L_WIDTH), (self.clip_g, "g", CLIP_G_WIDTH)):
            pooled.append(zeros(width) if part is None else part.encode_token_weights(token_weight_pairs[name])[1])
        states = zeros(TOKENS, T5_WIDTH) if self.t5xxl is None else self.t5xxl.encode_token_weights(token_weight_pairs["t5xxl"])[0]
        return states, torch.cat(pooled, dim=-1), {"conditioning_llama3": zeros(LLAMA_LAYERS, 1, LLAMA_WIDTH)}


def hidream_target(parts: Collection[str]) -> ClipTarget:
    """Of any of CLIP-L, CLIP-G and T5-XXL."""

    def made(**kwargs: Any) -> HiDreamTEModel:
        return HiDreamTEModel("clip_l" in parts, "clip_g" in parts, "t5xxl" in parts, **kwargs)

    return ClipTarget(HiDreamTokenizer, made)
