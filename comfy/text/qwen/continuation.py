"""Qwen's language models going on with a text: token after token, with what was computed for the earlier ones kept."""

from __future__ import annotations

from typing import Any

import torch

import comfy.ops
from comfy.text.qwen.network import QwenTextModel, causal_mask, cosines_and_sines, turn_frequencies


class Continuation:
    """One text, or several of one length (padded on the left), that *model* goes on with. It computes in the dtype of the embeddings."""

    def __init__(self, model: QwenTextModel, mask: torch.Tensor) -> None:
        """*mask*: texts x tokens, 0 for padding."""
        from transformers import DynamicCache

        self._model, self._mask = model, mask
        self._cache: Any = DynamicCache()
        self._done = 0

    def follow(self, embeds: torch.Tensor) -> torch.Tensor:
        """The normalised last state (texts x 1 x width) after the tokens *embeds* (texts x tokens x width): first all of the text, then
        each that was chosen.
        """
        tokens = embeds.shape[1]
        if self._done:
            self._mask = torch.cat((self._mask, self._mask.new_ones(len(self._mask), tokens)), dim=1)
        mask = causal_mask(embeds, self._mask, self._done)
        places = torch.arange(self._done, self._done + tokens, device=embeds.device)
        frequencies = turn_frequencies(self._model.config.head_width, self._model.config.rope_theta, embeds.device)
        turns = cosines_and_sines(places[:, None] * frequencies, embeds.dtype)
        x = embeds
        for layer in self._model.model.layers:
            x = layer(x, attention_mask=mask, position_embeddings=turns, past_key_values=self._cache, use_cache=True)
        self._done += tokens
        return self._model.model.norm(x[:, -1:])

    def rows(self, start: int, end: int, like: torch.Tensor) -> torch.Tensor:
        """The embeddings of the tokens *start* to *end*, patches included, where and as *like* is: a view where they are so already.

        They are the weights of the last layer too, of networks without one of its own.
        """
        layer: Any = self._model.get_input_embeddings()
        table, _ = comfy.ops.cast_bias_weight(layer, device=like.device, dtype=layer.weight.dtype)
        return table[start:end].to(like.dtype)
