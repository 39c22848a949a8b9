"""Tokenizers from SentencePiece models, which some text encoder files carry."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

MISSING = "SentencePiece models need the package sentencepiece: pip install sentencepiece"


class SPieceTokenizer:
    """Text to ids by the SentencePiece model *tokenizer_path*: its bytes, a uint8 tensor of them, or a file's path.

    *special_tokens* ({text: id}) are taken as they are; a text that holds one gets neither beginning nor end. Raises ``ValueError`` for
    what is no model, and ``ModuleNotFoundError`` without the package sentencepiece.
    """

    def __init__(
        self, tokenizer_path: Any, add_bos: bool = False, add_eos: bool = True, special_tokens: Mapping[str, int] | None = None
    ) -> None:
        self.add_bos, self.add_eos, self.special_tokens = add_bos, add_eos, special_tokens
        data = tokenizer_path.cpu().numpy().tobytes() if torch.is_tensor(tokenizer_path) else tokenizer_path
        self.tokenizer = _processor(data, add_bos, add_eos)

    @staticmethod
    def from_pretrained(path: Any, **kwargs: Any) -> "SPieceTokenizer":
        """The same as the constructor."""
        return SPieceTokenizer(path, **kwargs)

    def __call__(self, string: str) -> dict[str, list[int]]:
        """{"input_ids": the ids of *string*}."""
        special = self.special_tokens or {}
        pieces = re.split(f"({'|'.join(map(re.escape, special))})", string) if special else [string]
        if len(pieces) == 1:
            return {"input_ids": self.tokenizer.encode(string)}
        ids: list[int] = []
        for piece in filter(None, pieces):
            ids += [special[piece]] if piece in special else self.tokenizer.encode(piece, add_bos=False, add_eos=False)
        return {"input_ids": ids}

    def __len__(self) -> int:
        return self.tokenizer.get_piece_size()

    def get_vocab(self) -> dict[str, int]:
        """{token: id}."""
        return {self.tokenizer.id_to_piece(number): number for number in range(len(self))}

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of *token_ids*; those that stand for no piece, of which models may have some, give none."""
        hidden, pieces = set((self.special_tokens or {}).values()) if skip_special_tokens else set(), len(self)
        return self.tokenizer.decode([int(token) for token in token_ids if token not in hidden and 0 <= int(token) < pieces])

    def serialize_model(self) -> torch.Tensor:
        """The model's bytes (uint8, one dimension), as files of text encoders hold them."""
        return torch.frombuffer(bytearray(self.tokenizer.serialized_model_proto()), dtype=torch.uint8)


def _processor(model: Any, add_bos: bool, add_eos: bool) -> Any:
    try:
        import sentencepiece
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(MISSING, name="sentencepiece") from error
    if not isinstance(model, bytes) and not os.path.isfile(model or ""):
        raise ValueError(f"{model!r} is no file of a SentencePiece model")
    source = {"model_proto": model} if isinstance(model, bytes) else {"model_file": os.fspath(model)}
    try:
        return sentencepiece.SentencePieceProcessor(**source, add_bos=add_bos, add_eos=add_eos)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"this is no SentencePiece model ({error})") from error


class SavesSentencePiece:
    """For tokenizers of text encoders whose files carry a SentencePiece model: so do those that are saved."""

    tokenizer: Any

    def state_dict(self) -> dict[str, Any]:
        """The SentencePiece model, if the tokenizer is made of one."""
        return {"spiece_model": self.tokenizer.serialize_model()} if isinstance(self.tokenizer, SPieceTokenizer) else {}
