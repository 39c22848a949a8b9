"""What a network that turns token embeddings into hidden states offers to :class:`comfy.sd1_clip.SDClipModel`."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from comfy.families.weight_source import WeightSource


class TextModel(Protocol):
    """A network for text. Where it takes pictures among the tokens as well, it has ``preprocess_embed(embed, device)``.

    ``preprocess_embed`` turns {"type": …, "data": …} among the tokens into (vectors number x width or None, anything for ``embeds_info``).
    """

    num_layers: int

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """The token embedding layer; called with ids and ``out_dtype``."""

    def __call__(
        self,
        embeds: torch.Tensor,
        num_tokens: list[int],
        attention_mask: torch.Tensor | None = None,
        intermediate_output: int | str | list[int] | None = None,
        final_layer_norm_intermediate: bool = True,
        embeds_info: Sequence[dict[str, Any]] = (),
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """(last hidden state B x tokens x width, chosen hidden state or None, projected pooled output or None, pooled output or None).

        *embeds*: B x tokens x width, float32. *num_tokens*: per row, the tokens that are not padding. *attention_mask*: B x tokens, 1 where
        a token may be attended to. *intermediate_output*: the number of the layer to choose, or "all" or a list of numbers, whose states
        are stacked along dimension 1. *embeds_info*: of each embedding among the tokens {"type", "index", "size", "extra"}.
        """

    def load_weights(self, source: WeightSource, dtype: torch.dtype, what: str) -> set[str]:
        """Take the weights from *source*, floating-point ones in *dtype*; returns the names used. *what* names it in errors.

        Raises ``ModelFileError``.
        """
