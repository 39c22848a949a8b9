"""Prompt encoding for Flux.1: T5-XXL's hidden states and CLIP-L's pooled output. Flux.2's are in :mod:`comfy.text_encoders.flux2`."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.placeholders import placeholders
from comfy.sd1_clip import SDClipModel, SDTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text.t5_tokenizer import T5Tokenizer
from comfy.text_encoders.sd3_clip import T5XXLModel

MIN_TOKENS = 256
FLUX2_NAMES = (
    "Mistral3Tokenizer Flux2Tokenizer Mistral3_24BModel Flux2TEModel flux2_te "
    "Qwen3Tokenizer Qwen3Tokenizer8B KleinTokenizer KleinTokenizer8B Qwen3_4BModel Qwen3_8BModel klein_te"
).split()


class T5XXLTokenizer(T5Tokenizer):
    """T5's tokenizer, padded to 256 tokens."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, MIN_TOKENS)


class FluxTokenizer:
    """CLIP-L's and T5's tokenizers; results are keyed "l" and "t5xxl"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        self.clip_l = SDTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)
        self.t5xxl = T5XXLTokenizer(embedding_directory, tokenizer_data)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"l": chunks, "t5xxl": chunks}, see :meth:`SDTokenizer.tokenize_with_weights`."""
        return {
            "l": self.clip_l.tokenize_with_weights(text, return_word_ids, **kwargs),
            "t5xxl": self.t5xxl.tokenize_with_weights(text, return_word_ids, **kwargs),
        }

    def untokenize(self, token_weight_pair: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], str]]:
        """Each (token, weight) of CLIP-L with the token's text."""
        return self.clip_l.untokenize(token_weight_pair)

    def state_dict(self) -> dict[str, Any]:
        """What a saved text encoder must carry for its tokenizers: nothing."""
        return {}

    def decode(self, token_ids: Any, skip_special_tokens: bool = True) -> str | list[str]:
        """The text of T5's vocabulary ids."""
        return self.t5xxl.decode(token_ids, skip_special_tokens=skip_special_tokens)


class FluxClipModel(JointTextEncoder):
    """T5-XXL's hidden states, CLIP-L's pooled output."""

    def __init__(
        self,
        dtype_t5: torch.dtype | None = None,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = {**(model_options or {}), "model_name": "clip_l"}
        self.clip_l = SDClipModel(device=device, dtype=dtype, return_projected_pooled=False, model_options=options)
        self.t5xxl = T5XXLModel(device=device, dtype=dtype_t5 or dtype, model_options=model_options)
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(T5's hidden states 1 x tokens x width, CLIP-L's pooled output 1 x width) for chunks keyed "l" and "t5xxl"."""
        states, *_ = self.t5xxl.encode_token_weights(token_weight_pairs["t5xxl"])
        _, pooled, *_ = self.clip_l.encode_token_weights(token_weight_pairs["l"])
        return states, pooled


def flux_clip(**ignored: Any) -> Any:
    """A maker of :class:`FluxClipModel`. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return FluxClipModel


def flux_target(parts: Collection[str]) -> ClipTarget:
    """Of CLIP-L and T5-XXL."""
    return ClipTarget(FluxTokenizer, FluxClipModel)


__getattr__, __dir__ = placeholders(
    __name__,
    "Flux.2 models",
    "load_mistral_tokenizer() MistralTokenizerClass:object " + " ".join(f"{name}=comfy.text_encoders.flux2" for name in FLUX2_NAMES),
)
