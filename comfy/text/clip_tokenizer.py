"""Converts prompt text to weighted tokens, in chunks that a text model takes."""

import functools
import logging
import re
from collections.abc import Mapping
from typing import Any

import torch

import comfy.loading.embeddings
from comfy.text.clip_vocabulary import clip_tokenizer
from comfy.text.prompt_weights import escape_important, token_weights, unescape_important
from utils.whole_text import whole_text

log = logging.getLogger(__name__)

Token = Any  # a vocabulary id, or an embedding vector
EMBEDDING_PREFIX = "embedding:"
LONG_WORD_TOKENS = 8  # words of this many tokens may be split between chunks; shorter ones move to the next chunk


class SDTokenizer:
    """Tokenizes for one text model. Each chunk has a start token, up to *max_length* - 2 tokens, an end token, and padding.

    *tokenizer_class* makes the tokenizer (None: CLIP's) with ``from_pretrained(tokenizer_path, **tokenizer_args)``. Whether there are a
    start and an end token, *has_start_token* and *has_end_token* say; which, *start_token* and *end_token*, or the tokens of an empty text.
    """

    def __init__(
        self,
        tokenizer_path: Any = None,
        max_length: int = 77,
        pad_with_end: bool = True,
        embedding_directory: Any = None,
        embedding_size: int = 768,
        embedding_key: str = "clip_l",
        tokenizer_class: Any = None,
        has_start_token: bool = True,
        has_end_token: bool = True,
        pad_to_max_length: bool = True,
        min_length: int | None = None,
        pad_token: int | None = None,
        end_token: int | None = None,
        start_token: int | None = None,
        min_padding: int | None = None,
        pad_left: bool = False,
        disable_weights: bool = False,
        tokenizer_data: Mapping[str, Any] | None = None,
        tokenizer_args: Mapping[str, Any] | None = None,
    ) -> None:
        data = tokenizer_data or {}
        if tokenizer_class is None:
            self.tokenizer = clip_tokenizer()
        else:
            self.tokenizer = tokenizer_class.from_pretrained(tokenizer_path, **(tokenizer_args or {}))
        empty = list(self.tokenizer("")["input_ids"])
        self.tokens_start = 1 if has_start_token and empty else 0  # where a text's own tokens begin
        self.tokenizer_adds_end_token = has_end_token  # whether an end token follows them
        self.start_token = empty[0] if self.tokens_start else start_token
        self.end_token = end_token
        if end_token is None and has_end_token:
            self.end_token = empty[self.tokens_start]
        self.pad_with_end, self.pad_left = pad_with_end, pad_left
        self.pad_token = pad_token if pad_token is not None else (self.end_token if pad_with_end else 0)
        self.max_length = data.get(f"{embedding_key}_max_length", max_length)
        self.min_length = data.get(f"{embedding_key}_min_length", min_length)
        self.min_padding = min_padding
        self.pad_to_max_length = pad_to_max_length
        self.embedding_identifier = EMBEDDING_PREFIX
        self.embedding_directory = embedding_directory
        self.embedding_size = embedding_size
        self.embedding_key = embedding_key
        self.max_word_length = LONG_WORD_TOKENS
        self.disable_weights = disable_weights

    @functools.cached_property
    def inv_vocab(self) -> dict[int, str]:
        """{vocabulary id: token}."""
        return {index: token for token, index in self.tokenizer.get_vocab().items()}

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, tokenizer_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[list[tuple[Any, ...]]]:
        """Chunks of (token, weight); with *return_word_ids* of (token, weight, number of the word from 1, or 0 for special tokens).

        A token is a vocabulary id or a vector of an embedding. With ``disable_weights=True`` parentheses are plain characters.
        """
        options = tokenizer_options or {}
        escaped = escape_important(whole_text(text))
        literal = kwargs.get("disable_weights", self.disable_weights)
        words = []
        for segment, weight in [(escaped, 1.0)] if literal else token_weights(escaped, 1.0):
            words += self._words(unescape_important(segment), weight)
        chunks = self._chunks(words)
        last = chunks[-1]
        padding = options.get(f"{self.embedding_key}_min_padding", self.min_padding)
        least = kwargs.get("min_length", options.get(f"{self.embedding_key}_min_length", self.min_length))
        self._pad(last, padding or 0)
        if self.pad_to_max_length:
            self._pad(last, self.max_length - len(last))
        self._pad(last, (least or 0) - len(last))
        return chunks if return_word_ids else [[token[:2] for token in chunk] for chunk in chunks]

    def _pad(self, chunk: list[tuple[Any, ...]], amount: int) -> None:
        where = 0 if self.pad_left else len(chunk)
        chunk[where:where] = [(self.pad_token, 1.0, 0)] * amount

    def _words(self, text: str, weight: float) -> list[list[tuple[Token, float]]]:
        """Groups of tokens that should stay together, with embeddings resolved."""
        words = []
        first, *others = re.split(rf"(?<=\s){re.escape(self.embedding_identifier)}", text)
        for word in filter(None, [first, *(self.embedding_identifier + other for other in others)]):
            rest = word
            if word.startswith(self.embedding_identifier) and self.embedding_directory is not None:
                vectors, rest = self._embedding(word[len(self.embedding_identifier) :].strip("\n"))
                if vectors is not None:
                    words.append([(vector, weight) for vector in vectors])
                if not rest:
                    continue
            ids = self.tokenizer(rest)["input_ids"][self.tokens_start :]
            words.append([(token, weight) for token in (ids[:-1] if self.tokenizer_adds_end_token else ids)])
        return words

    def _try_get_embedding(self, embedding_name: str) -> tuple[torch.Tensor | None, str]:
        """The vectors (number x width) of the embedding that a text begins with, or None, and the text after its name."""
        vectors, rest = self._embedding(embedding_name)
        return (None if vectors is None else torch.stack(vectors)), rest

    def _embedding(self, text: str) -> tuple[list[torch.Tensor] | None, str]:
        """The vectors of the embedding that *text* begins with (None without such a file), and the text after its name."""
        name, *following = text.split() or [""]
        rest = " ".join(following)
        bracket = re.search(r"[<\[]", name)
        if bracket is not None:
            rest = name[bracket.start() :] + (" " + rest if rest else "")
            name = name[: bracket.start()]
        vectors = self._load(name)
        if vectors is None and name.strip(",") != name:
            stripped = name.strip(",")
            vectors, rest = self._load(stripped), f"{name[len(stripped) :]} {rest}"
        if vectors is None:
            log.warning("there is no embedding %r; it is left out of the prompt", name)
            return None, rest
        return [vectors] if vectors.ndim == 1 else list(vectors), rest

    def _load(self, name: str) -> torch.Tensor | None:
        if not name:
            return None
        return comfy.loading.embeddings.load_embed(name, self.embedding_directory, self.embedding_size, self.embedding_key)

    def _chunks(self, words: list[list[tuple[Token, float]]]) -> list[list[tuple[Any, ...]]]:
        """Distribute words, numbered from 1, over chunks; all chunks but the last are filled to the full length."""
        start, end = ([] if token is None else [(token, 1.0, 0)] for token in (self.start_token, self.end_token))
        chunk: list[tuple[Any, ...]] = [*start]
        chunks = [chunk]
        for number, word in enumerate(words, 1):
            left = [(token, weight, number) for token, weight in word]
            may_split = len(left) >= self.max_word_length
            while left:
                room = self.max_length - len(end) - len(chunk)
                if len(left) <= room:
                    chunk += left
                    break
                if may_split:
                    chunk += left[:room]
                    left = left[room:]
                chunk += end
                if not may_split and self.pad_to_max_length:
                    self._pad(chunk, room)
                chunk = [*start]
                chunks.append(chunk)
        chunk += end
        return chunks

    def untokenize(self, token_weight_pair: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], str]]:
        """Pair each (token, weight) with the token's text."""
        return [(pair, self.inv_vocab[pair[0]]) for pair in token_weight_pair]

    def state_dict(self) -> dict[str, Any]:
        """The data that a saved text encoder needs for its tokenizer: none, because CLIP's vocabulary is built in."""
        return {}

    def decode(self, token_ids: Any, skip_special_tokens: bool = True) -> str | list[str]:
        """The text of vocabulary ids; for a list of lists, a list of texts."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)


class SD1Tokenizer:
    """The tokenizer of a family with one text model. Its results are dicts with the model's short name ("l") as key."""

    def __init__(
        self,
        embedding_directory: Any = None,
        tokenizer_data: Mapping[str, Any] | None = None,
        clip_name: str = "l",
        tokenizer: Any = SDTokenizer,
        name: str | None = None,
    ) -> None:
        data = tokenizer_data or {}
        self.clip_name = name or clip_name
        self.clip = name or f"clip_{clip_name}"
        kind = data.get(f"{self.clip}_tokenizer_class", tokenizer)
        setattr(self, self.clip, kind(embedding_directory=embedding_directory, tokenizer_data=data))

    @property
    def _inner(self) -> SDTokenizer:
        return getattr(self, self.clip)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{short name: chunks of (token, weight)}; :meth:`SDTokenizer.tokenize_with_weights` explains the arguments."""
        return {self.clip_name: self._inner.tokenize_with_weights(text, return_word_ids, **kwargs)}

    def untokenize(self, token_weight_pair: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], str]]:
        """Pair each (token, weight) with the token's text."""
        return self._inner.untokenize(token_weight_pair)

    def state_dict(self) -> dict[str, Any]:
        """The data that a saved text encoder needs for its tokenizer."""
        return self._inner.state_dict()

    def decode(self, token_ids: Any, skip_special_tokens: bool = True) -> str | list[str]:
        """The text of vocabulary ids; for a list of lists, a list of texts."""
        return self._inner.decode(token_ids, skip_special_tokens=skip_special_tokens)
