"""Prompt encoding for Wan: UMT5-XXL, masked states set to zero. Its files carry their tokenizer."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_sizes import UMT5_XXL
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.t5_tokenizer import NO_LIMIT, TOKENS
from comfy.text.tokenizer_files import FoundTokenizer, WantedTokenizer
from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer

MIN_TOKENS = 512
TOKENIZER = WantedTokenizer("umt5xxl", "umt5", "google/umt5-xxl", files=("spiece.model",))


class UMT5XXlModel(SDClipModel):
    """UMT5-XXL."""

    def __init__(
        self,
        device: Any = "cpu",
        layer: str = "last",
        layer_idx: int | None = None,
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            device=device,
            layer=layer,
            layer_idx=layer_idx,
            textmodel_json_config=UMT5_XXL,
            dtype=dtype,
            special_tokens=TOKENS,
            model_class=T5Transformer,
            enable_attention_masks=True,
            zero_out_masked=True,
            model_options=model_options,
        )


class UMT5XXlTokenizer(SDTokenizer):
    """UMT5's tokenizer, padded to 512 tokens; no embeddings of files."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            TOKENIZER,
            pad_with_end=False,
            embedding_size=UMT5_XXL.hidden_size,
            embedding_key="umt5xxl",
            tokenizer_class=FoundTokenizer,
            has_start_token=False,
            pad_to_max_length=False,
            max_length=NO_LIMIT,
            min_length=MIN_TOKENS,
            pad_token=0,
            tokenizer_data=tokenizer_data,
            tokenizer_args={"data": tokenizer_data},
        )

    def state_dict(self) -> dict[str, Any]:
        """The SentencePiece model, if the tokenizer is made of one."""
        return {"spiece_model": self.tokenizer.serialize_model()} if isinstance(self.tokenizer, SPieceTokenizer) else {}


class WanT5Tokenizer(SD1Tokenizer):
    """Results are keyed "umt5xxl"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=UMT5XXlTokenizer, name="umt5xxl")


class WanT5Model(SD1ClipModel):
    """UMT5-XXL alone, as ``umt5xxl``."""

    def __init__(
        self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(device=device, dtype=dtype, model_options=model_options, name="umt5xxl", clip_model=UMT5XXlModel, **kwargs)


def te(**ignored: Any) -> Any:
    """:class:`WanT5Model`. What UMT5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""
    return WanT5Model


def wan_target(parts: Collection[str]) -> ClipTarget:
    """Of UMT5-XXL."""
    return ClipTarget(WanT5Tokenizer, WanT5Model)
