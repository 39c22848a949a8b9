"""Tokenizers of text models that take a prompt in one piece."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.text.clip_tokenizer import SDTokenizer
from comfy.text.tokenizer_files import FoundTokenizer, WantedTokenizer

NO_LIMIT = 99999999


class OneChunkTokenizer(SDTokenizer):
    """A prompt becomes one chunk of any length. *wanted* says where the tokenizer is looked for; other arguments are ``SDTokenizer``'s."""

    def __init__(self, wanted: WantedTokenizer, tokenizer_data: Mapping[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(
            wanted,
            tokenizer_class=FoundTokenizer,
            tokenizer_args={"data": tokenizer_data or {}},
            tokenizer_data=tokenizer_data,
            embedding_key=wanted.part,
            pad_with_end=False,
            pad_to_max_length=False,
            **{"max_length": NO_LIMIT, **settings},
        )
