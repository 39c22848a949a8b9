"""Stable Audio as samplers see it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch

import comfy.conds
from comfy import made_by
from comfy.dit.network import without_weights
from comfy.families.model_errors import IncompleteModelError
from comfy.families.weight_source import PrefixedSource, StateDictSource
from comfy.ldm.audio.dit import AudioDiffusionTransformer
from comfy.ldm.audio.embedders import NumberConditioner
from comfy.model_base import BaseModel, ModelType

PLACES_PER_SECOND = 21.53
LONGEST = 512  # seconds
CONDITIONERS = "conditioner.conditioners."


class StableAudio1(BaseModel):
    """Text as tokens, and when the sound begins and how long it is, in seconds, as two more and as a vector."""

    def __init__(
        self, model_config: Any, model_type: ModelType = ModelType.V_PREDICTION_CONTINUOUS, device: torch.device | None = None
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(AudioDiffusionTransformer))
        width = model_config.unet_config["cond_token_dim"]
        self.seconds_start_embedder = NumberConditioner(width, max_val=LONGEST)
        self.seconds_total_embedder = NumberConditioner(width, max_val=LONGEST)

    def conditioners(self) -> dict[str, NumberConditioner]:
        """The two, by what stands before their weights in a checkpoint."""
        both = {"seconds_start": self.seconds_start_embedder, "seconds_total": self.seconds_total_embedder}
        return {f"{CONDITIONERS}{name}.": conditioner for name, conditioner in both.items()}

    def load_model_weights(self, sd: Any, unet_prefix: str = "", assign: bool = False) -> BaseModel:
        """Also those of the two times, which only a whole checkpoint has."""
        source = StateDictSource(sd) if isinstance(sd, MutableMapping) else sd
        for prefix, conditioner in self.conditioners().items():
            if not any(key.startswith(prefix) for key in source.shapes()):
                raise IncompleteModelError(
                    f"the diffusion model in {source.name} has no tensors {prefix}*; use a checkpoint that holds them, as the published one"
                )
            conditioner.load_weights(PrefixedSource(source, prefix), "the times of Stable Audio")
        return super().load_model_weights(sd, unet_prefix, assign)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """The two times as ``global_embed``, and behind the text; without a node the sound is as long as the latent."""
        device, text = kwargs["device"], kwargs.get("cross_attn")
        whole = int(kwargs["noise"].shape[-1] / PLACES_PER_SECOND)
        start = self.seconds_start_embedder([kwargs.get("seconds_start", 0)])[0].to(device)
        total = self.seconds_total_embedder([kwargs.get("seconds_total", whole)])[0].to(device)
        conds = {"global_embed": comfy.conds.CONDRegular(torch.cat((start, total), dim=-1).flatten(1))}
        if text is not None:
            made_by.check_context(text, self.context_width(), self.said())
            times = (time.expand(len(text), -1, -1) for time in (start, total))
            conds["c_crossattn"] = comfy.conds.CONDRegular(torch.cat((text.to(device), *times), dim=1))
        return conds

    def state_dict_for_saving(self, *arguments: Any, **kwargs: Any) -> dict[str, Any]:
        """Also the weights of the two times."""
        saved = super().state_dict_for_saving(*arguments, **kwargs)
        for prefix, conditioner in self.conditioners().items():
            saved |= {prefix + name: value for name, value in conditioner.state_dict().items()}
        return saved
