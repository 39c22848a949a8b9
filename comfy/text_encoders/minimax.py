"""MiniMax H3's text encoder: Qwen3-VL's states of a prompt and of the pictures and videos that it speaks of, and of what each token is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.half import PAIR, HalfQwen3VLTextModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD, QwenWords

PART = "qwen3vl_32b"
WIDTH = 5120
WANTED = WantedTokenizer(part=PART, folder="qwen25_tokenizer", repository="Qwen/Qwen3-VL-32B-Instruct")
BEGIN, END = 151652, 151653  # <|vision_start|>, <|vision_end|>
TURNS_PER_S = 2.0  # frames that are looked at, where no times are given
SEEN, TOLD = 0, 1  # what a token is: of a picture, or of text
NAMES = {"image": "Picture", "audio": "Audio", "video": "Video"}


class MiniMaxWords(QwenWords):
    """Qwen's tokenizer, with embeddings of the text model's width."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(WANTED, WIDTH, tokenizer_data, embedding_directory)


class MiniMaxH3Tokenizer(sd1_clip.SD1Tokenizer):
    """Prompts after the pictures, videos and sounds that they speak of, each with its name and number. Weights are plain text."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=MiniMaxWords)

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        images: Sequence[torch.Tensor] = (),
        minimax_ref_items: Sequence[Mapping[str, Any]] = (),
        **kwargs: Any,
    ) -> dict[str, Any]:
        """{"qwen3vl_32b": one chunk of (token, weight)}. *images* (1 x height x width x 3) count as pictures, where there are no
        *minimax_ref_items*: dicts with ``type`` "image", "video" (frames x height x width x 3 as ``data``, seconds of each as
        ``timestamps``) or "audio".
        """
        items = list(minimax_ref_items) or [{"type": "image", "data": image} for image in images]
        counts = dict.fromkeys(NAMES, 0)
        tokens: list[Any] = []
        for item in items:
            kind = item["type"]
            counts[kind] += 1
            tokens += self._words(f"<{NAMES[kind]} {counts[kind]}>: ")
            if kind == "image":
                tokens += _looked_at(item["data"])
            elif kind == "video":
                for seconds, frames in _pairs(item):
                    tokens += [*self._words(f"<{seconds:.1f} seconds>"), *_looked_at(frames, **{PAIR: True})]
        tokens += self._words(text)
        chunk = [(token, 1.0, 0) if return_word_ids else (token, 1.0) for token in tokens or [PAD]]
        return {PART: [chunk]}

    def _words(self, text: str) -> list[Any]:
        """The tokens of *text*, which may be none."""
        words: Any = getattr(self, PART)
        return [token for token, *_ in words.tokenize_with_weights(text, False, disable_weights=True)[0]] if text else []


def _looked_at(picture: torch.Tensor, **more: Any) -> list[Any]:
    return [BEGIN, {"type": "image", "data": picture, "original_type": "image", **more}, END]


def _pairs(item: Mapping[str, Any]) -> Iterator[tuple[float, torch.Tensor]]:
    """The middle in seconds, and the frames, of each two of a video's; a single one at its end stands still."""
    frames, times = item["data"], item.get("timestamps")
    times = [number / TURNS_PER_S for number in range(len(frames))] if times is None else times
    for first in range(0, len(frames), 2):
        last = min(first + 1, len(frames) - 1)
        yield (times[first] + times[last]) / 2.0, frames[[first, last]]


class MiniMaxH3ClipModel(PublishedTextModel):
    """The states after the last layer, which no norm follows, and ``minimax_token_tags``: what each token is."""

    MODEL_CLASS, TOKENS, MASKED, SETTINGS = HalfQwen3VLTextModel, {"pad": PAD}, False, {"layer_norm_hidden_state": False}
    _tags: torch.Tensor

    def process_tokens(self, tokens: list[list[Any]], device: torch.device) -> tuple[Any, ...]:
        """As its base class; it keeps what the tokens are for :meth:`encode_token_weights`."""
        found = super().process_tokens(tokens, device)
        self._tags = token_tags(found[0].shape[1], found[3])
        return found

    def encode_token_weights(self, token_weight_pairs: Sequence[Sequence[tuple[Any, ...]]]) -> tuple[Any, ...]:
        """(states 1 x tokens x width, None, {"minimax_token_tags"})."""
        states, pooled, *_ = super().encode_token_weights(token_weight_pairs)
        return states, pooled, {"minimax_token_tags": self._tags}


def token_tags(length: int, embeds_info: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """What each of *length* tokens is: those of pictures, with the marks before and after them, and text."""
    tags = torch.full((length,), TOLD, dtype=torch.long)
    for info in embeds_info:
        if info.get("type") == "image":
            tags[max(0, info["index"] - 1) : info["index"] + info["size"] + 1] = SEEN
    return tags


class MiniMaxH3TEModel(sd1_clip.SD1ClipModel):
    """The family's text encoder."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=MiniMaxH3ClipModel, model_options=model_options)


def te(**ignored: Any) -> Callable[..., MiniMaxH3TEModel]:
    """:class:`MiniMaxH3TEModel`. Its dtype, its file says."""
    return MiniMaxH3TEModel


def minimax_target(parts: Collection[str]) -> ClipTarget:
    """Of the first half of Qwen3-VL 32B."""
    return ClipTarget(MiniMaxH3Tokenizer, MiniMaxH3TEModel)
