"""Gemma 4's tokenizer, conversation and hidden states: alone, as a model that writes, and as the text encoder of LTX 2.5."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.gemma4 import media
from comfy.text.gemma4.network import Gemma4TextModel
from comfy.text.gemma4.sizes import GEMMA_4_E4B, LARGE, MEDIUM, SMALL, UNIFIED
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel

PART = "gemma4"
START, PAD = 2, 0
PICTURE, SOUND, FRAME = 258880, 258881, 258884
TURN = "<|turn>"
SEEN, HEARD = "<|image><|image|><image|>", "<|audio><|audio|><audio|>"
THINKING = "<|turn>system\n<|think|>\n<turn|>\n"
NO_THOUGHT = "<|channel>thought\n<channel|>"
LONGEST_PADDING = 1024  # tokens that LTX 2.5's prompts are filled up to, at the left
_THOUGHT = re.compile(r"<\|channel>thought\n(.*?)<channel\|>", re.DOTALL)
_MARKS = re.compile(r"<\|channel>\w*\n?|<channel\|>|<\|turn>\w*\n?|<turn\|>")


class Gemma4_Tokenizer:  # noqa: N801 - ComfyUI's name
    """For tokenizers of Gemma 4: puts prompts into a conversation where that is asked for, and pictures and sound among the tokens.

    ``prime_empty_thought``: whether the answer begins with an empty thought where none is asked for.
    """

    prime_empty_thought: ClassVar[bool] = False

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        tokenizer_options: Mapping[str, Any] | None = None,
        image: torch.Tensor | None = None,
        audio: Mapping[str, Any] | None = None,
        video: torch.Tensor | None = None,
        llama_template: str | None = None,
        skip_template: bool = True,
        thinking: bool = False,
        **kwargs: Any,
    ) -> list[list[tuple[Any, ...]]]:
        """Chunks of (token, weight). *image* (B x height x width x 3), or one frame of each second of *video* (which goes before it), and
        *audio* ({"waveform", "sample_rate"}) take the places of their marks.

        Without *skip_template* the text is put into *llama_template* (``{}`` stands for it) or Gemma's own conversation, unless it begins
        with a turn; then marks are put in as well.
        """
        frames = [] if video is None else media.seen_frames(video, kwargs.pop("fps", media.FRAMES_PER_SECOND))
        pictures = [] if image is None or frames else media.seen_pictures(image, media.PICTURE_TOKENS)
        sounds = [] if audio is None else [self._heard(media.mono(audio))]
        if not skip_template and not text.startswith(TURN):
            marks = _marks(len(frames), len(pictures), len(sounds))
            text = self._conversation(text, marks, thinking) if llama_template is None else llama_template.format(text)
        chunks = super().tokenize_with_weights(text, return_word_ids, tokenizer_options, **kwargs)  # type: ignore[misc]
        for mark, given in ((FRAME, _looked_at(frames)), (PICTURE, _looked_at(pictures)), (SOUND, sounds)):
            chunks = [_put_in(chunk, mark, given) for chunk in chunks] if given else chunks
        return chunks

    def _conversation(self, text: str, marks: str, thinking: bool) -> str:
        begun = NO_THOUGHT if self.prime_empty_thought and not thinking else ""
        return f"{THINKING if thinking else ''}{TURN}user\n{text}{marks}<turn|>\n{TURN}model\n{begun}"

    @staticmethod
    def _heard(samples: torch.Tensor) -> dict[str, Any]:
        return media.spectrum(samples)


def _marks(frames: int, pictures: int, sounds: int) -> str:
    """What stands in a conversation for so many of each."""
    moments = " ".join(f"{second // 60:02d}:{second % 60:02d} <|image><|video|><image|>" for second in range(frames))
    seen = moments or "\n\n\n\n".join([SEEN] * pictures)
    return (f"\n\n{seen}\n\n" if seen else "") + HEARD * sounds


def _looked_at(pictures: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
    return [{"type": "image", "data": picture} for picture in pictures]


def _put_in(chunk: Sequence[tuple[Any, ...]], mark: int, given: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """*chunk* with each of *given* in the place of a *mark*, or of several side by side; further marks stay."""
    left = list(given)
    result: list[tuple[Any, ...]] = []
    before = None
    for token, *rest in chunk:
        if isinstance(token, int) and token == mark and (before == mark or left):
            if before != mark:
                result.append((left.pop(0), *rest))
            before = mark
            continue
        result.append((token, *rest))
        before = None
    return result


class Gemma4SDTokenizer(Gemma4_Tokenizer, OneChunkTokenizer):
    """A start token, no end token, filled up at the left, no weights."""

    WIDTH: ClassVar[int] = GEMMA_4_E4B.hidden_size
    REPOSITORY: ClassVar[str] = "google/gemma-4-E4B-it"

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        self._carried = (tokenizer_data or {}).get(PART, tokenizer_data or {}).get("tokenizer_json")
        super().__init__(
            WantedTokenizer(PART, "gemma4", self.REPOSITORY),
            tokenizer_data,
            embedding_directory=embedding_directory,
            embedding_size=self.WIDTH,
            has_end_token=False,
            start_token=START,
            min_length=1,
            pad_left=True,
            disable_weights=True,
        )

    def state_dict(self) -> dict[str, Any]:
        """The tokenizer that the text encoder's file carries, if it does."""
        return {} if self._carried is None else {"tokenizer_json": self._carried}

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of *token_ids*, with thoughts between ``<think>`` and ``</think>`` and without marks of the conversation."""
        text = _THOUGHT.sub(r"<think>\n\1</think>", str(self.tokenizer.decode(list(token_ids), skip_special_tokens=False)))
        text = text.replace("<|channel>thought\n", "<think>\n")
        return _MARKS.sub("", text).replace("<eos>", "").strip()


class Gemma4SmallTokenizer(Gemma4SDTokenizer):
    """That of E2B."""

    WIDTH, REPOSITORY = 1536, "google/gemma-4-E2B-it"


class Gemma4LargeTokenizer(Gemma4SDTokenizer):
    """That of the one with 31 billion parameters."""

    WIDTH, REPOSITORY, prime_empty_thought = 5376, "google/gemma-4-31B-it", True


class Gemma4UnifiedSDTokenizer(Gemma4SDTokenizer):
    """That of the one with twelve billion parameters, which takes sound as samples."""

    WIDTH, REPOSITORY, prime_empty_thought = 3840, "google/gemma-4-12B-it", True

    @staticmethod
    def _heard(samples: torch.Tensor) -> dict[str, Any]:
        return media.raw_moments(samples)


class Gemma4Tokenizer(SD1Tokenizer):
    """Results are keyed "gemma4"."""

    tokenizer_class: ClassVar[Callable[..., Gemma4SDTokenizer]] = Gemma4SDTokenizer

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=self.tokenizer_class)


class Gemma4E2BTokenizer(Gemma4Tokenizer):
    """Of E2B."""

    tokenizer_class = Gemma4SmallTokenizer


class Gemma431BTokenizer(Gemma4Tokenizer):
    """Of the largest."""

    tokenizer_class = Gemma4LargeTokenizer


class Gemma4UnifiedTokenizer(Gemma4Tokenizer):
    """Of the one with twelve billion parameters."""

    tokenizer_class = Gemma4UnifiedSDTokenizer


def ltxav_gemma4_tokenizer(tokenizer: type[Gemma4Tokenizer]) -> type[Gemma4Tokenizer]:
    """The class *tokenizer* for LTX 2.5, whose prompts are filled up to 1024 tokens."""

    class LTXAVGemma4Tokenizer(tokenizer):  # type: ignore[misc,valid-type]
        """Fills prompts up."""

        def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
            super().__init__(embedding_directory, tokenizer_data)
            self._inner.min_length = LONGEST_PADDING if self._inner.min_length == 1 else self._inner.min_length

    return LTXAVGemma4Tokenizer


class Gemma4Model(PublishedTextModel):
    """The states before every layer and after the last: B x (layers + 1) x tokens x width."""

    MODEL_CLASS, SIZES, TOKENS = Gemma4TextModel, GEMMA_4_E4B, {"start": START, "pad": PAD}
    LAYER, SETTINGS, NAME = ("all", None), {"layer_norm_hidden_state": False}, PART


class Gemma4TEModel(SD1ClipModel):
    """Gemma 4 alone, as ``gemma4``."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=Gemma4Model, model_options=model_options)


def gemma4_te(**ignored: Any) -> type[Gemma4TEModel]:
    """:class:`Gemma4TEModel`. Which one it is and what it is kept in, its file says."""
    return Gemma4TEModel


TOKENIZERS = {SMALL: Gemma4E2BTokenizer, MEDIUM: Gemma4Tokenizer, UNIFIED: Gemma4UnifiedTokenizer, LARGE: Gemma431BTokenizer}


def _alone(size: str, parts: Collection[str]) -> ClipTarget:
    return ClipTarget(TOKENIZERS[size], Gemma4TEModel)


# Of Gemma 4 alone, by its size.
e2b_target, e4b_target, unified_target, large_target = (functools.partial(_alone, size) for size in TOKENIZERS)
