"""The tokenizer that all T5 encoders share, and the end and padding tokens of T5 and UMT5."""

from collections.abc import Mapping
from typing import Any

from comfy.text.one_chunk import NO_LIMIT, OneChunkTokenizer
from comfy.text.tokenizer_files import WantedTokenizer

TOKENS: Mapping[str, int | None] = {"end": 1, "pad": 0}
REPOSITORY = "google-t5/t5-base"


class T5Tokenizer(OneChunkTokenizer):
    """One chunk of any length: tokens, the end token, and padding up to *min_length*.

    *embedding_key* is the text model's name, *embedding_size* the width of embeddings that prompts may name.
    """

    def __init__(
        self,
        embedding_directory: Any = None,
        tokenizer_data: Mapping[str, Any] | None = None,
        min_length: int | None = None,
        max_length: int = NO_LIMIT,
        embedding_key: str = "t5xxl",
        embedding_size: int = 4096,
    ) -> None:
        super().__init__(
            WantedTokenizer(embedding_key, "t5", REPOSITORY),
            tokenizer_data,
            embedding_directory=embedding_directory,
            embedding_size=embedding_size,
            has_start_token=False,
            max_length=max_length,
            min_length=min_length,
        )
