"""The text encoder of ACE-Step 1: UMT5 base for the tags; of the lyrics the diffusion model itself takes the tokens."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_sizes import UMT5_BASE
from comfy.sd1_clip import SD1ClipModel
from comfy.supported_models_base import ClipTarget
from comfy.text.clip_tokenizer import SDTokenizer
from comfy.text.one_chunk import NO_LIMIT, OneChunkTokenizer
from comfy.text.t5_tokenizer import TOKENS
from comfy.text.tokenizer_files import WantedTokenizer, find_tokenizer
from comfy.text_encoders.ace_text_cleaners import japanese_to_romaji, multilingual_cleaners
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.spiece_tokenizer import SavesSentencePiece

PART, LYRICS = "umt5base", "lyrics"
TAGS_TOKENIZER = WantedTokenizer(PART, "umt5", "google/umt5-base", files=("spiece.model",))
LYRICS_TOKENIZER = WantedTokenizer(LYRICS, "ace_lyrics_tokenizer", "coqui/XTTS-v2", files=("vocab.json",))
START, LINE_END = 261, 2
LANGUAGES = frozenset("en de fr es it pt pl tr ru cs nl ar zh ja hu ko hi".split())
STRUCTURE = re.compile(r"\[.*?\]")
MARKED = re.compile(r"\[(..)\](.*)", re.DOTALL)
SPOKEN_AS = {"zh": "zh-cn"}


class VoiceBpeTokenizer:
    """Lyrics line by line, each with a mark of its language: as it says itself ("[fr]…"), English otherwise, Japanese where it has kana."""

    def __init__(self, words: Any) -> None:
        self._words = words

    @staticmethod
    def from_pretrained(wanted: WantedTokenizer, **kwargs: Any) -> VoiceBpeTokenizer:
        """With the tokenizer that :func:`comfy.text.tokenizer_files.find_tokenizer` finds."""
        return VoiceBpeTokenizer(find_tokenizer(wanted, {}))

    def encode(self, txt: str, lang: str = "en") -> list[int]:
        """The tokens of one line."""
        marked = f"[{SPOKEN_AS.get(lang, lang)}]{multilingual_cleaners(txt, lang)}"
        return list(self._words(marked.replace(" ", "[SPACE]"), add_special_tokens=False)["input_ids"])

    def get_lang(self, line: str) -> tuple[str, str]:
        """(language, the line without the mark of it)."""
        found = MARKED.fullmatch(line)
        if found is not None and found[1].lower() in LANGUAGES:
            return found[1].lower(), found[2]
        return "en", line

    def __call__(self, string: str) -> dict[str, list[int]]:
        """{"input_ids": a start, then the tokens of each line and its end}."""
        ids = [START]
        for line in map(str.strip, string.split("\n")):
            if line:
                language, line = self.get_lang(line)
                latin = japanese_to_romaji(line)
                language = language if latin == line else "ja"
                ids += self.encode(latin, "en" if STRUCTURE.match(latin) else language)
            ids.append(LINE_END)
        return {"input_ids": ids}

    def get_vocab(self) -> dict[str, int]:
        """Nothing: tokens of lyrics are not shown."""
        return {}


class UMT5BaseModel(PublishedTextModel):
    """UMT5 base, whose states of padding stay."""

    MODEL_CLASS, SIZES, TOKENS = T5Transformer, UMT5_BASE, TOKENS
    GIVES_MASK = False


class UMT5BaseTokenizer(SavesSentencePiece, OneChunkTokenizer):
    """UMT5's tokenizer, without padding."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        width = UMT5_BASE.hidden_size
        super().__init__(TAGS_TOKENIZER, tokenizer_data, embedding_size=width, has_start_token=False, min_length=1, pad_token=0)


class LyricsTokenizer(SDTokenizer):
    """The tokens of lyrics in one chunk."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            LYRICS_TOKENIZER,
            pad_with_end=False,
            embedding_size=1024,
            embedding_key=LYRICS,
            tokenizer_class=VoiceBpeTokenizer,
            has_end_token=False,
            pad_to_max_length=False,
            max_length=NO_LIMIT,
            min_length=1,
            pad_token=LINE_END,
            tokenizer_data=tokenizer_data,
        )


class AceT5Tokenizer:
    """Both tokenizers; results are keyed "umt5base" and "lyrics"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        self.voicebpe = LyricsTokenizer(embedding_directory, tokenizer_data)
        self.umt5base = UMT5BaseTokenizer(embedding_directory, tokenizer_data)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"lyrics": chunks, "umt5base": chunks} of (token, weight), of *text* and of ``lyrics`` among *kwargs*."""
        return {
            LYRICS: self.voicebpe.tokenize_with_weights(kwargs.get("lyrics", ""), return_word_ids, **kwargs),
            PART: self.umt5base.tokenize_with_weights(text, return_word_ids, **kwargs),
        }

    def untokenize(self, token_weight_pair: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], str]]:
        """Each (token, weight) of UMT5 with the token's text."""
        return self.umt5base.untokenize(token_weight_pair)

    def state_dict(self) -> dict[str, Any]:
        """What a saved text encoder must carry for its tokenizers."""
        return self.umt5base.state_dict()


class AceT5Model(SD1ClipModel):
    """UMT5's states; the tokens of the lyrics as ``conditioning_lyrics``."""

    def __init__(
        self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(device=device, dtype=dtype, name=PART, clip_model=UMT5BaseModel, model_options=model_options)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x 768, None, {"conditioning_lyrics": 1 x tokens, integers})."""
        states, *_ = super().encode_token_weights(token_weight_pairs)
        return states, None, {"conditioning_lyrics": torch.tensor([[token for token, *_ in token_weight_pairs[LYRICS][0]]])}


def ace_target(parts: Collection[str]) -> ClipTarget:
    """Of UMT5 base."""
    return ClipTarget(AceT5Tokenizer, AceT5Model)
