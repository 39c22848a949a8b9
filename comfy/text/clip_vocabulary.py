"""Builds OpenAI CLIP's byte-pair vocabulary from its list of merges (see clip_data/NOTICE)."""

import functools
import gzip
import pathlib
from typing import Any

from transformers import CLIPTokenizer

MERGES_FILE = pathlib.Path(__file__).parent / "clip_data" / "bpe_merges.txt.gz"
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte, in vocabulary order: printable Latin-1 first, then the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


@functools.cache
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """({token: id}, merges in rank order). Read once per process; any thread may call this."""
    with gzip.open(MERGES_FILE, "rt", encoding="utf-8") as file:
        merges = [(left, right) for left, right in (line.split() for line in file)]
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *(left + right for left, right in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def clip_tokenizer() -> CLIPTokenizer:
    """The tokenizer over CLIP's vocabulary. All text models of the process share it, because making one takes 50 ms; do not change it.

    If somebody has added tokens to it nevertheless, this returns a new one.
    """
    tokenizer = _shared_tokenizer()
    if len(tokenizer) != len(clip_vocabulary()[0]):
        _shared_tokenizer.cache_clear()
        tokenizer = _shared_tokenizer()
    return tokenizer


@functools.cache
def _shared_tokenizer() -> CLIPTokenizer:
    vocabulary, merges = clip_vocabulary()
    pairs: Any = list(merges)  # the tokenizer accepts pairs although its annotation says strings
    return CLIPTokenizer(vocab=dict(vocabulary), merges=pairs)
