"""The tokenizer that all T5 encoders share, and the end and padding tokens of T5 and UMT5."""

from collections.abc import Mapping
from typing import Any

from comfy.text.clip_tokenizer import SDTokenizer
from comfy.text.tokenizer_files import FoundTokenizer, WantedTokenizer

TOKENS: Mapping[str, int | None] = {"end": 1, "pad": 0}
NO_LIMIT = 99999999
REPOSITORY = "google-t5/t5-base"


class T5Tokenizer(SDTokenizer):
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
            pad_with_end=False,
            embedding_directory=embedding_directory,
            embedding_size=embedding_size,
            embedding_key=embedding_key,
            tokenizer_class=FoundTokenizer,
            has_start_token=False,
            pad_to_max_length=False,
            max_length=max_length,
            min_length=min_length,
            tokenizer_data=tokenizer_data,
            tokenizer_args={"data": tokenizer_data},
        )
