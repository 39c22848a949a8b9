"""Gemma 3's tokenizer, conversation and hidden states, for the names in :mod:`comfy.text_encoders.lt` and ``lumina2``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch

import comfy.utils
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.gemma3 import GEMMA_3_4B, GEMMA_3_12B, Gemma3TextModel
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.spiece_tokenizer import SavesSentencePiece

LARGE, SMALL = "gemma3_12b", "gemma3_4b"
PICTURE, END_OF_TURN = 262144, 106
SEEN_PIXELS = 896 * 896
LONGEST_PADDING = 1024  # tokens that LTX 2's prompts are filled up to, at the left
SPECIAL = {"<image_soft_token>": PICTURE, "<end_of_turn>": END_OF_TURN}
TURN, END = "<start_of_turn>", "<end_of_turn>\n"
SYSTEM = f"{TURN}system\nYou are a helpful assistant.{END}"
CONVERSATION = f"{SYSTEM}{TURN}user\n{{}}{END}{TURN}model\n"
ABOUT_A_PICTURE = f"{SYSTEM}{TURN}user\n\n<image_soft_token>{{}}{END}\n{TURN}model\n"


class Gemma3_Tokenizer:  # noqa: N801 - ComfyUI's name
    """For tokenizers of Gemma 3: puts prompts into a conversation where that is asked for, and pictures among the tokens."""

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        tokenizer_options: Mapping[str, Any] | None = None,
        image: torch.Tensor | None = None,
        llama_template: str | None = None,
        skip_template: bool = True,
        **kwargs: Any,
    ) -> list[list[tuple[Any, ...]]]:
        """Chunks of (token, weight). *image* (B x height x width x 3) takes the place of the first mark of a picture.

        Without *skip_template* the text is put into *llama_template* (``{}`` stands for it) or Gemma's own, unless it begins with a turn.
        """
        if not skip_template and not text.startswith(TURN):
            own = CONVERSATION if image is None else ABOUT_A_PICTURE
            text = (own if llama_template is None else llama_template).format(text)
        chunks = super().tokenize_with_weights(text, return_word_ids, tokenizer_options, **kwargs)  # type: ignore[misc]
        return chunks if image is None else _with_picture(chunks, _seen(image))


def _seen(image: torch.Tensor) -> torch.Tensor:
    """*image* with as many pixels as the model looks at, of the same shape."""
    height, width = image.shape[1:3]
    scale = math.sqrt(SEEN_PIXELS / (height * width))
    size = round(width * scale), round(height * scale)
    return comfy.utils.common_upscale(image.movedim(-1, 1), *size, "area", "disabled").movedim(1, -1)[..., :3]


def _with_picture(chunks: list[list[tuple[Any, ...]]], picture: torch.Tensor) -> list[list[tuple[Any, ...]]]:
    """*chunks*, in place, with *picture* where its first mark is."""
    for chunk in chunks:
        for index, (token, *rest) in enumerate(chunk):
            if token == PICTURE:
                chunk[index] = ({"type": "image", "data": picture}, *rest)
                return chunks
    return chunks


class _Gemma3Words(SavesSentencePiece, Gemma3_Tokenizer, OneChunkTokenizer):
    """A start token, no end token, no embeddings of files."""

    def __init__(self, part: str, repository: str, width: int, data: Mapping[str, Any] | None, **settings: Any) -> None:
        super().__init__(
            WantedTokenizer(
                part,
                "gemma3",
                repository,
                files=("tokenizer.model",),
                sentence_piece={"add_bos": True, "add_eos": False, "special_tokens": SPECIAL},
            ),
            data,
            embedding_size=width,
            has_end_token=False,
            disable_weights=True,
            **settings,
        )


class Gemma3_12BTokenizer(_Gemma3Words):  # noqa: N801 - ComfyUI's name
    """That of the model with twelve billion parameters, which fills prompts up to 1024 tokens at the left."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        settings = {"min_length": LONGEST_PADDING, "pad_left": True}
        super().__init__(LARGE, "google/gemma-3-12b-it", GEMMA_3_12B.hidden_size, tokenizer_data, **settings)


class Gemma3_4BTokenizer(_Gemma3Words):  # noqa: N801 - ComfyUI's name
    """That of the model with four billion parameters."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(SMALL, "google/gemma-3-4b-it", GEMMA_3_4B.hidden_size, tokenizer_data, min_length=1)


class LTXAVGemmaTokenizer(SD1Tokenizer):
    """Results are keyed "gemma3_12b"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=LARGE, tokenizer=Gemma3_12BTokenizer)


class NTokenizer(SD1Tokenizer):
    """Results are keyed "gemma3_4b"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=SMALL, tokenizer=Gemma3_4BTokenizer)


class Gemma3_12BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """The states before every layer and after the last: B x 49 x tokens x width."""

    MODEL_CLASS, SIZES, TOKENS = Gemma3TextModel, GEMMA_3_12B, {"start": 2, "pad": 0}
    LAYER, SETTINGS = ("all", None), {"layer_norm_hidden_state": False}


class Gemma3_4BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """The state after the layer before the last."""

    MODEL_CLASS, SIZES, TOKENS = Gemma3TextModel, GEMMA_3_4B, {"start": 2, "pad": 0}
    LAYER, SETTINGS = ("hidden", -2), {"layer_norm_hidden_state": False}


class Gemma3_4B_Vision_Model(Gemma3_4BModel):  # noqa: N801 - ComfyUI's name
    """The same; whether it looks at pictures, its file says."""


class Gemma3LargeTEModel(SD1ClipModel):
    """Gemma 3 12B alone, as ``gemma3_12b``."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=LARGE, clip_model=Gemma3_12BModel, model_options=model_options)


class Gemma3SmallTEModel(SD1ClipModel):
    """Gemma 3 4B alone, as ``gemma3_4b``."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=SMALL, clip_model=Gemma3_4BModel, model_options=model_options)


def gemma3_te(**ignored: Any) -> Any:
    """:class:`Gemma3LargeTEModel`. What Gemma is kept in, its file says, so ``dtype_llama`` needs no passing on."""
    return Gemma3LargeTEModel


def gemma3_target(parts: Collection[str]) -> ClipTarget:
    """Of Gemma 3 alone, of either size."""
    return ClipTarget(LTXAVGemmaTokenizer, Gemma3LargeTEModel) if LARGE in parts else ClipTarget(NTokenizer, Gemma3SmallTEModel)
