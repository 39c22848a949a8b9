"""Prompts that ask for a digit, as tokens of CLIP's vocabulary."""

import random
from typing import Any

import torch

from comfy.text.clip_tokenizer import SDTokenizer
from starter.sizes import TEXT

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ANY_DIGIT = 10  # the class of prompts that name no digit
CLASSES = 11
FIRST_SPECIAL = 49406
MOST_STRANGE_WORDS = 8

TEMPLATES = (
    "{}",
    "{a} {}",
    "the digit {}",
    "the number {}",
    "digit {}",
    "number {}",
    "{a} handwritten {}",
    "handwritten {}",
    "a handwritten digit {}",
    "the handwritten number {}",
    "a picture of {a} {}",
    "a photo of the digit {}",
    "a drawing of the number {}",
    "the figure {} written by hand",
    "draw {a} {}",
    "please write the number {}",
    "{a} big {}",
    "{a} small {}",
    "the digit {} in a box",
    "one picture showing the digit {}",
    "just {a} {}, nothing else",
)
WITHOUT_DIGIT = (
    "",
    "",
    "",
    "a digit",
    "a handwritten digit",
    "a number",
    "handwriting",
    "a picture",
    "a drawing",
    "any digit",
    "some number written by hand",
    "a photo",
)
ENDINGS = (
    "",
    "",
    "",
    "",
    ".",
    ", handwritten",
    ", light on dark",
    " on a dark background",
    " on light paper",
    ", outlined",
    ", high quality",
    ", best quality, masterpiece",
    ", centered",
    " in blue ink",
    ", simple",
    ", 8x8",
    ", black and white",
    " with an orange fill",
)


def random_prompt(digit: int, chooser: random.Random) -> str:
    """A prompt that asks for *digit*, or for none in particular (``ANY_DIGIT``)."""
    if digit == ANY_DIGIT:
        text = chooser.choice(WITHOUT_DIGIT)
        return text + chooser.choice(ENDINGS) if text else text
    name = chooser.choice((DIGIT_NAMES[digit], DIGIT_NAMES[digit], str(digit)))
    article = "an" if digit == 8 else "a"
    return chooser.choice(TEMPLATES).format(name, a=article) + chooser.choice(ENDINGS)


class PromptTokens:
    """Turns prompts into rows of tokens with the server's own tokenizer."""

    def __init__(self) -> None:
        self._tokenizer = SDTokenizer(embedding_size=TEXT.hidden_size)
        names = [*DIGIT_NAMES, *map(str, range(10))]
        self._digit_words = frozenset(token for name in names for token in self._words(name))
        self._known: dict[str, list[int]] = {}

    def _words(self, text: str) -> list[int]:
        return [token for token, _ in self._tokenizer.tokenize_with_weights(text, disable_weights=True)[0] if token < FIRST_SPECIAL]

    def rows(self, prompts: list[str]) -> torch.Tensor:
        """N x 77 token ids."""
        return torch.tensor([self._row(self._prompt(text)) for text in prompts])

    def strange_rows(self, prompts: list[str], chooser: random.Random) -> torch.Tensor:
        """The same with a few random words of the vocabulary, none of them a digit's name, put between the prompt's own."""
        rows = []
        for text in prompts:
            words = list(self._prompt(text))
            for _ in range(chooser.randrange(MOST_STRANGE_WORDS + 1) if text else 0):
                strange = chooser.randrange(FIRST_SPECIAL)
                if strange not in self._digit_words:
                    words.insert(chooser.randrange(len(words) + 1), strange)
            rows.append(self._row(words))
        return torch.tensor(rows)

    def _prompt(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._words(text)
        return self._known[text]

    def _row(self, words: list[int]) -> list[int]:
        kept = words[: TEXT.positions - 2]
        padding = TEXT.positions - 1 - len(kept)
        row: list[Any] = [self._tokenizer.start_token, *kept, *[self._tokenizer.end_token] * padding]
        return row
