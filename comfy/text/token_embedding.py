"""Chunks of tokens as vectors and masks: ids are looked up, embeddings and pictures among them put in their places."""

import logging
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch

log = logging.getLogger(__name__)


def embed_tokens(
    model: Any, special_tokens: Mapping[str, int | None], tokens: list[list[Any]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, list[int], list[dict[str, Any]]]:
    """(embeddings B x tokens x width float32, attention mask B x tokens, tokens in each row, what was put into the last row).

    *model* is a :class:`comfy.text.text_model.TextModel`. The mask holds ones up to and with the end token; without an end token, up to the
    first padding. Padding on the left is masked as well. Vectors of another width than the model's are left out, and padding stands at the
    end for them.
    """
    rows = [_Row(model, special_tokens, chunk, device) for chunk in tokens]
    masks = [row.mask for row in rows]
    embeds = torch.cat([row.embeds for row in rows])
    return embeds, torch.tensor(masks, device=device, dtype=torch.long), [sum(mask) for mask in masks], rows[-1].infos


def token_ids(chunk: Sequence[Any], infos: Sequence[Mapping[str, Any]], length: int) -> list[int]:
    """The ids of *chunk* where they stand among *length* vectors, and 0 where *infos* say that something was put in."""
    put_in = {info["index"]: info["size"] for info in infos if info["size"]}
    left = iter(token for token in chunk if isinstance(token, numbers.Integral))
    ids: list[int] = []
    while len(ids) < length:
        ids += [0] * put_in[len(ids)] if len(ids) in put_in else [int(next(left, 0))]
    return ids


class _Row:
    """One chunk: ``embeds`` (1 x tokens x width), ``mask`` and ``infos`` of what was put in."""

    def __init__(self, model: Any, special_tokens: Mapping[str, int | None], chunk: list[Any], device: torch.device) -> None:
        self._model, self._device = model, device
        self._pad = special_tokens.get("pad", -1)
        ids = [int(token) for token in chunk if isinstance(token, numbers.Integral)]
        begins = bool(chunk) and isinstance(chunk[0], numbers.Integral) and chunk[0] == self._pad
        self.mask = _mask(ids, special_tokens.get("end"), self._pad, begins)
        self.embeds = self._look_up(ids)
        self.infos: list[dict[str, Any]] = []
        unfit, moved = 0, 0
        for position, token in enumerate(chunk):
            if isinstance(token, numbers.Integral):
                continue
            kind, vectors, extra = self._vectors(token)
            if vectors is not None and vectors.shape[-1] == self.embeds.shape[-1]:
                self._put_in(position + moved, kind, vectors, extra)
                moved += vectors.shape[1] - 1
                continue
            moved -= 1
            if vectors is not None:
                log.warning(
                    "an embedding of width %d does not fit a text model of width %d; it is left out",
                    vectors.shape[-1],
                    self.embeds.shape[-1],
                )
                unfit += vectors.shape[1]
        if unfit:
            self.embeds = torch.cat([self.embeds, self._look_up([special_tokens["pad"]] * unfit)], dim=1)
            self.mask += [0] * unfit

    def _look_up(self, ids: list[Any]) -> torch.Tensor:
        return self._model.get_input_embeddings()(torch.tensor([ids], device=self._device, dtype=torch.long), out_dtype=torch.float32)

    def _vectors(self, token: Any) -> tuple[str | None, torch.Tensor | None, Any]:
        """(kind, vectors 1 x number x width or None, what the model says of them) of a token that is no id."""
        if torch.is_tensor(token):
            token = {"type": "embedding", "data": token}
        kind, vectors, extra = token.get("type"), token.get("data"), None
        if kind != "embedding":
            if not hasattr(self._model, "preprocess_embed"):
                raise ValueError(f"this text encoder takes no {kind or 'such data'} in a prompt; load one that does")
            vectors, extra = self._model.preprocess_embed(token, device=self._device)
        if vectors is not None:
            vectors = vectors.view(1, -1, vectors.shape[-1]).to(device=self._device, dtype=torch.float32)
        return kind, vectors, extra

    def _put_in(self, index: int, kind: str | None, vectors: torch.Tensor, extra: Any) -> None:
        size = vectors.shape[1]
        self.embeds = torch.cat([self.embeds[:, :index], vectors, self.embeds[:, index:]], dim=1)
        self.mask[index:index] = [1] * size
        self.infos.append({"type": kind, "index": index, "size": size, "extra": extra})


def _mask(ids: list[int], end: int | None, pad: int | None, begins: bool) -> list[int]:
    """1 for each of *ids* that is no padding: those before the end token and itself, or before the first padding where there is none.

    *begins*: whether the chunk begins with padding.
    """
    last = pad if end is None else end
    mask, on_left, ended = [], begins, False
    for token in ids:
        on_left = on_left and token == pad
        hidden = ended or on_left
        if not ended and not on_left and token == last:
            ended, hidden = True, end is None
        mask.append(0 if hidden else 1)
    return mask
