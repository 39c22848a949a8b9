"""A family's text encoder made of several text models."""

from collections.abc import Mapping
from typing import Any

import torch

from comfy.families.model_errors import UnknownModelError
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.text.kinds import recognise


class JointTextEncoder(torch.nn.Module):
    """Text models under their names ("clip_l", "t5xxl"); a subclass makes them, None for those that are not there, and encodes with them.

    ``dtypes`` are those that weights are kept in.
    """

    dtypes: set[torch.dtype]

    def parts(self) -> dict[str, Any]:
        """The text models that are there, by name."""
        return dict(self.named_children())

    def set_clip_options(self, options: Mapping[str, Any]) -> None:
        """Set options of all text models for the next encoding."""
        for part in self.parts().values():
            part.set_clip_options(options)

    def reset_clip_options(self) -> None:
        """Restore the text models' own options."""
        for part in self.parts().values():
            part.reset_clip_options()

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Encode {short name of a text model: chunks of (token, weight)}: hidden states, pooled output or None[, extras]."""
        raise NotImplementedError

    def load_weights(self, sources: Mapping[str, WeightSource]) -> None:
        """Weights by text model ("clip_l"), see :meth:`comfy.sd1_clip.SDClipModel.load_weights`."""
        for name, part in self.parts().items():
            part.load_weights(sources[name], name)

    def load_sd(self, sd: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
        """Load the text model that *sd* is of; see :meth:`comfy.sd1_clip.SDClipModel.load_sd`.

        Raises ``UnknownModelError`` where it is none of these.
        """
        found = recognise(StateDictSource(sd))
        part = None if found is None else self.parts().get(found.kind.part)
        if part is None:
            kind = "no text model" if found is None else found.kind.label
            raise UnknownModelError(f"the state dict is {kind}; this text encoder is made of {', '.join(self.parts())}")
        return part.load_sd(sd)
