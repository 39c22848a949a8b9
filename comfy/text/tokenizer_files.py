"""Where the tokenizer of a text encoder comes from: its own file, a folder, or the Hugging Face hub."""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import folder_paths
from comfy.cli_args import args
from comfy.families.model_errors import MissingTokenizerError
from comfy.text_encoders.spiece_tokenizer import SPieceTokenizer

log = logging.getLogger(__name__)

FAST, SENTENCE_PIECE, TEKKEN = "tokenizer.json", ("spiece.model", "tokenizer.model"), "tekken.json"
CARRIED = ("tokenizer_json", "spiece_model", "tekken_model")  # tensors of bytes in files of text encoders
ENCODERS = "text_encoders"


@dataclass(frozen=True, slots=True)
class WantedTokenizer:
    """Which tokenizer a text encoder needs.

    *part*: the text encoder's name in its family ("t5xxl"), under which ``tokenizer_data`` holds what its file gave. *folder*: the name of
    its folder below the folders of tokenizers. *repository* and *files*: where the hub has it. *sentence_piece*: arguments for
    :class:`SPieceTokenizer`, where it is a SentencePiece model.
    """

    part: str
    folder: str
    repository: str
    files: tuple[str, ...] = (FAST,)
    sentence_piece: Mapping[str, Any] = field(default_factory=dict)


class FoundTokenizer:
    """Makes tokenizers for :class:`comfy.text.clip_tokenizer.SDTokenizer`."""

    @staticmethod
    def from_pretrained(wanted: WantedTokenizer, data: Mapping[str, Any] | None = None) -> Any:
        """What :func:`find_tokenizer` finds."""
        return find_tokenizer(wanted, data or {})


def find_tokenizer(wanted: WantedTokenizer, data: Mapping[str, Any]) -> Any:
    """The tokenizer *wanted*: called with a text it gives {"input_ids": ids}; it has ``get_vocab()`` and ``decode(ids)``.

    *data* is a text encoder's ``tokenizer_data``. Blocks on files and the network. Raises ``MissingTokenizerError``, which names the text
    encoder's file and where to put a tokenizer.
    """
    own: Mapping[str, Any] = {**data, **(data.get(wanted.part) or {})}
    file = own.get("file") or f"the text encoder {wanted.part}"
    for name in CARRIED:
        if own.get(name) is not None:
            return _made(wanted, own[name], name, f"{name} in {file}")
    for folder in folders(wanted, own.get("file")):
        for name in dict.fromkeys((FAST, *SENTENCE_PIECE, TEKKEN, *wanted.files)):
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                log.info("%s: its tokenizer is %s", file, path)
                return _made(wanted, path, name, path)
    path = _from_hub(wanted, file)
    return _made(wanted, path, os.path.basename(path), path)


def folders(wanted: WantedTokenizer, file: str | None) -> Iterator[str]:
    """The folders in which a tokenizer may lie, in the order of looking: named like the encoder's *file*, or its kind."""
    stem = [os.path.splitext(os.path.basename(file))[0]] if file else []
    names = [*stem, wanted.folder, wanted.part, wanted.repository.rpartition("/")[2]]
    beside = [os.path.dirname(os.path.abspath(file))] if file and os.path.isfile(file) else []
    for root in dict.fromkeys([*args.tokenizer_directory, *folder_paths.get_folder_paths(ENCODERS), *beside]):
        for name in dict.fromkeys(names):
            yield os.path.join(root, name)


def is_offline() -> bool:
    """Whether the hub must not be asked."""
    from huggingface_hub import constants

    return bool(args.offline or constants.HF_HUB_OFFLINE)


def _from_hub(wanted: WantedTokenizer, file: str) -> str:
    """The path of the tokenizer in the user's cache of the hub, fetched if need be."""
    from huggingface_hub import hf_hub_download

    problem = "fetching one is forbidden (--offline or its environment variables)"
    for name in wanted.files:
        try:
            return hf_hub_download(wanted.repository, name, local_files_only=True)
        except (OSError, ValueError):
            continue
    if not is_offline():
        log.info("%s: fetching its tokenizer from huggingface.co/%s into the user's cache; --offline forbids that", file, wanted.repository)
        for name in wanted.files:
            try:
                return hf_hub_download(wanted.repository, name)
            except (OSError, ValueError) as error:
                problem = f"fetching {name} of {wanted.repository} failed ({type(error).__name__}: {error})"
    raise MissingTokenizerError(
        f"{file} has no tokenizer of its own, and {problem}. Put {' or '.join(wanted.files)} of {wanted.repository} into a folder named "
        f"{wanted.folder} in {folder_paths.get_folder_paths(ENCODERS)[0]}, or in the one that --tokenizer-directory names"
    )


def _made(wanted: WantedTokenizer, source: Any, kind: str, name: str) -> Any:
    """The tokenizer in *source*: bytes, a tensor or text of it, or a file's path. *kind* is its file's name, or that of the tensor that
    carries it; *name* is for errors.
    """
    try:
        if kind in (TEKKEN, CARRIED[2]):
            return _tekken(source)
        return _fast(source) if kind == CARRIED[0] or kind.endswith(".json") else SPieceTokenizer(source, **wanted.sentence_piece)
    except ModuleNotFoundError as error:
        raise MissingTokenizerError(f"{name}: {error}") from error
    except Exception as error:  # the tokenizers library raises Exception itself for what is no tokenizer
        raise MissingTokenizerError(f"{name} is no tokenizer ({error}); put another one in its place") from error


def _fast(source: Any) -> Any:
    """A tokenizer of the library tokenizers, from the path of its JSON or that JSON in a tensor, as bytes or as text."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if torch.is_tensor(source):
        source = source.cpu().numpy().tobytes()
    if isinstance(source, (str, os.PathLike)) and not str(source).lstrip().startswith("{"):
        with open(source, "rb") as file:
            source = file.read()
    made = Tokenizer.from_str(source.decode("utf-8") if isinstance(source, bytes) else str(source))
    made.no_truncation()
    made.no_padding()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def _tekken(source: Any) -> Any:
    """A tokenizer of Mistral's own format, from the path of its JSON or that JSON in a tensor."""
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.mistral.tokenizer import MistralConverter

    if not torch.is_tensor(source):
        return PreTrainedTokenizerFast(tokenizer_object=MistralConverter(source).converted())
    with tempfile.TemporaryDirectory() as folder:  # transformers reads files only
        path = os.path.join(folder, TEKKEN)
        with open(path, "wb") as file:
            file.write(source.cpu().numpy().tobytes())
        return PreTrainedTokenizerFast(tokenizer_object=MistralConverter(path).converted())
