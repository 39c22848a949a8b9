"""LongCat-Image's text encoder: Qwen2.5-VL, for which what stands in quotation marks is spelled character by character."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.qwen_image import PART, PICTURE, WRITTEN_OUT, Qwen25_7BVLITokenizer, QwenImageTEModel, template_end_of

log = logging.getLogger(__name__)

WORDS = 512  # tokens that the user's part has
ENDED = 151645  # <|im_end|>
MARKS = (("'", "'"), ('"', '"'), ("\u2018", "\u2019"), ("\u201c", "\u201d"))
QUOTED = re.compile("|".join(f"{opening}[^{opening}{closing}]*?{closing}" for opening, closing in MARKS))
APOSTROPHE = re.compile(r"(?<=[a-zA-Z])'(?=[a-zA-Z])")
STAND_IN = "\ue000"  # for an apostrophe, which is no quotation mark
SYSTEM = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n"
ABOUT_TEXT = SYSTEM.format(
    "As an image captioning expert, generate a descriptive text prompt based on an image content, "
    "suitable for input to a text-to-image model."
)
ABOUT_PICTURE = (
    SYSTEM.format(
        "As an image editing expert, first analyze the content and attributes of the input image(s). Then, based on the user's editing "
        "instructions, clearly and precisely determine how to modify the given image(s), ensuring that only the specified parts are "
        "altered and all other aspects remain consistent with the original(s)."
    )
    + "<|vision_start|><|image_pad|><|vision_end|>"
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n"


def split_quotation(prompt: str) -> list[tuple[str, bool]]:
    """The parts of *prompt* in order, and whether each stands in quotation marks (which it includes)."""
    text = APOSTROPHE.sub(STAND_IN, prompt)
    parts, reached = [], 0
    for found in QUOTED.finditer(text):
        parts += [(text[reached : found.start()], False), (found.group(), True)]
        reached = found.end()
    return [(part.replace(STAND_IN, "'"), quoted) for part, quoted in [*parts, (text[reached:], False)] if part]


class LongCatImageBaseTokenizer(Qwen25_7BVLITokenizer):
    """Qwen's tokenizer: 512 tokens, cut or padded."""

    def ids(self, text: str) -> list[int]:
        """The tokens of *text*, without marks."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, tokenizer_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[list[tuple[Any, ...]]]:
        """One chunk of (token, 1). Options and weights are not heeded, as in ComfyUI."""
        tokens: list[int] = []
        for part, quoted in split_quotation(text):
            for piece in part if quoted else (part,):
                tokens += self.ids(piece)
        if len(tokens) > WORDS:
            log.warning("the prompt has %d tokens; LongCat-Image takes %d, and the rest is left out", len(tokens), WORDS)
        kept = tokens[:WORDS]
        return [[(token, 1.0) for token in [*kept, *[self.pad_token] * (WORDS - len(kept))]]]


class LongCatImageTokenizer(sd1_clip.SD1Tokenizer):
    """Puts prompts into the conversation that LongCat-Image was trained with."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=LongCatImageBaseTokenizer)

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, images: Sequence[torch.Tensor] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """{"qwen25_7b": one chunk}, in which the first of *images* (B x height x width x 3) takes the place of a picture's mark.

        A text that begins with a mark of a conversation is taken as it is.
        """
        if text.startswith(WRITTEN_OUT):
            return super().tokenize_with_weights(text, return_word_ids, **kwargs)
        words: Any = self._inner
        pictures = iter(images or ())
        chunk: list[tuple[Any, ...]] = [(token, 1.0) for token in words.ids(ABOUT_PICTURE if images else ABOUT_TEXT)]
        chunk += words.tokenize_with_weights(text or " ")[0]
        chunk += [(token, 1.0) for token in words.ids(AFTER)]
        for place, (token, weight) in enumerate(chunk):
            if token == PICTURE and (picture := next(pictures, None)) is not None:
                chunk[place] = ({"type": "image", "data": picture, "original_type": "image"}, weight)
        return {PART: [chunk]}


class LongCatImageTEModel(QwenImageTEModel):
    """The states of the user's part of the conversation, without what follows; a mask where some tokens are padding."""

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any], template_end: int = -1) -> tuple[Any, ...]:
        """(states 1 x tokens x width, None, {"attention_mask"} or {}). *template_end*: the first token to keep; -1: found by the marks."""
        tokens = [token for token, *_ in token_weight_pairs[PART][0]]
        start = template_end_of(tokens) if template_end == -1 else template_end
        states, pooled, extra = super().encode_token_weights(token_weight_pairs, max(start, 0))
        ends = [place for place, token in enumerate(tokens) if isinstance(token, int) and token == ENDED]
        after = len(tokens) - ends[-1] if ends else 0
        if not 0 < after < states.shape[1]:
            return states, pooled, extra
        others = {name: value for name, value in extra.items() if name != "attention_mask"}
        mask = extra.get("attention_mask")
        mask = None if mask is None else mask[:, :-after]
        return states[:, :-after], pooled, others if mask is None or mask.all() else {**others, "attention_mask": mask}


def te(**ignored: Any) -> Any:
    """:class:`LongCatImageTEModel`. What Qwen is kept in, its file says, so ``dtype_llama`` needs no passing on."""
    return LongCatImageTEModel


def longcat_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen2.5-VL."""
    return ClipTarget(LongCatImageTokenizer, LongCatImageTEModel)
