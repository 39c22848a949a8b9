"""SAM 3's text encoder: open_clip's, with 32 tokens for each thing that a prompt names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from comfy.families.clip_text_config import ClipTextConfig
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer

PART = "sam3_clip"
LENGTH = 32
TOKENS = {"start": 49406, "end": 49407, "pad": 0}
SEVERAL, CONDITIONS = "sam3_per_prompt", "sam3_multi_cond"  # where the prompts after the first are, in tokens and in conditioning
COUNTED = re.compile(r"(.+?)\s*:\s*([\d.]+)")
SIZES = ClipTextConfig(
    vocabulary=49408,
    positions=LENGTH,
    hidden_size=1024,
    intermediate_size=4096,
    num_layers=24,
    num_heads=16,
    hidden_act="quick_gelu",
    projection=1024,
)


def named_things(text: str) -> list[tuple[str, int]]:
    """What *text* names ("cat, dog:3"), and how many of each are looked for at most: 1 where it does not say."""
    things = []
    for part in re.sub(r"[()]", "", text).split(","):
        if part := part.strip():
            counted = COUNTED.fullmatch(part)
            things.append((part, 1) if counted is None else (counted[1].strip(), max(1, round(float(counted[2])))))
    return things


class SAM3Tokenizer(SDTokenizer):
    """The tokens of one thing; weights have no meaning."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            max_length=LENGTH,
            pad_with_end=False,
            pad_token=TOKENS["pad"],
            embedding_directory=embedding_directory,
            embedding_size=SIZES.hidden_size,
            embedding_key=PART,
            disable_weights=True,
            tokenizer_data=tokenizer_data,
        )


class SAM3TokenizerWrapper(SD1Tokenizer):
    """The tokens of the first thing, and of each with its number where there are several."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, tokenizer=SAM3Tokenizer, name=PART)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"sam3_clip": chunks[, "sam3_per_prompt": [(chunks, most), …]]}. Raises ``ValueError`` for "cat:1.2.3"."""
        things = named_things(text)
        if not things or (len(things) == 1 and things[0][1] == 1):
            return super().tokenize_with_weights(text, return_word_ids, **kwargs)
        each = [(self._inner.tokenize_with_weights(thing, return_word_ids, **kwargs), most) for thing, most in things]
        return {PART: each[0][0], SEVERAL: each}


class SAM3ClipModel(SDClipModel):
    """The last states of each token, and which tokens there are."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            device=device,
            max_length=LENGTH,
            textmodel_json_config=SIZES,
            dtype=dtype,
            special_tokens=TOKENS,
            enable_attention_masks=True,
            return_projected_pooled=False,
            return_attention_masks=True,
            model_options=model_options,
        )


class SAM3ClipModelWrapper(SD1ClipModel):
    """The states of the first thing; those of each are in the conditioning, too, where there are several."""

    def __init__(
        self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(device=device, dtype=dtype, model_options=model_options, clip_model=SAM3ClipModel, name=PART)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x width, pooled, {"attention_mask"[, "sam3_multi_cond": a dict for each thing]})."""
        if SEVERAL not in token_weight_pairs:
            return super().encode_token_weights(token_weight_pairs)
        each = [(self._inner.encode_token_weights(chunks), most) for chunks, most in token_weight_pairs[SEVERAL]]
        (states, pooled, extra), _ = each[0]
        conditions = [{"cond": one, "attention_mask": more.get("attention_mask"), "max_detections": most} for (one, _, more), most in each]
        return states, pooled, {**extra, CONDITIONS: conditions}
