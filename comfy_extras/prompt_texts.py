"""What nodes that encode several texts at once have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP

NOT_THAT_ENCODER = "the text encoder has no part {name!r} (it has {found}); load one of the family that this node is for"


def prompt_input(name: str, tooltip: str | None = None) -> io.String.Input:
    """A text of several lines in which the page replaces ``{a|b}``."""
    return io.String.Input(name, multiline=True, dynamic_prompts=True, tooltip=tooltip)


def tokens_of(clip: CLIP, text: str, name: str) -> Any:
    """The tokens of *text* for the encoder *name* of *clip*. Raises ``ValueError`` when *clip* has no such encoder."""
    tokens: Mapping[str, Any] = clip.tokenize(text)
    if name not in tokens:
        raise ValueError(NOT_THAT_ENCODER.format(name=name, found=", ".join(sorted(tokens))))
    return tokens[name]


def with_texts(clip: CLIP, text: str, **others: str) -> dict[str, Any]:
    """The tokens of *text* for all encoders of *clip*, those of *others* (encoder: text) in place of them.

    Raises ``ValueError`` when *clip* has no such encoder.
    """
    return {**clip.tokenize(text), **{name: tokens_of(clip, other, name) for name, other in others.items()}}
