"""Stable Audio as samplers see it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch

import comfy.conds
import comfy.utils
from comfy import made_by
from comfy.dit.network import without_weights
from comfy.families.model_errors import IncompleteModelError
from comfy.families.published_weights import load_published
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource
from comfy.ldm.audio.dit import AudioDiffusionTransformer
from comfy.ldm.audio.embedders import NumberConditioner
from comfy.model_base import BaseModel, ModelType

PLACES_PER_SECOND = 21.53
LONGEST = 512  # seconds
CONDITIONERS = "conditioner.conditioners."

THIRD_PLACES_PER_SECOND = 10.7666
THIRD_LONGEST = 384  # seconds
PROMPT = f"{CONDITIONERS}prompt."
PADDING = "padding_embedding"
TEXT_TOKENS = 256  # what texts are filled up to


class _Timed(BaseModel):
    """What those have in common that take times, whose weights stand beside the network in a checkpoint."""

    def conditioners(self) -> dict[str, NumberConditioner]:
        """Those of the times, by what stands before their weights in a checkpoint."""
        raise NotImplementedError

    def load_model_weights(self, sd: Any, unet_prefix: str = "", assign: bool = False) -> BaseModel:
        """Also those of the times, which only a whole checkpoint has."""
        source = StateDictSource(sd) if isinstance(sd, MutableMapping) else sd
        for prefix, conditioner in self.conditioners().items():
            if not any(key.startswith(prefix) for key in source.shapes()):
                raise IncompleteModelError(
                    f"the diffusion model in {source.name} has no tensors {prefix}*; use a checkpoint that holds them, as the published one"
                )
            conditioner.load_weights(PrefixedSource(source, prefix), "the times of Stable Audio")
        self.load_further(source)
        return super().load_model_weights(sd, unet_prefix, assign)

    def load_further(self, source: WeightSource) -> None:
        """Take what else stands beside the network."""

    def state_dict_for_saving(self, *arguments: Any, **kwargs: Any) -> dict[str, Any]:
        """Also the weights of the times."""
        saved = super().state_dict_for_saving(*arguments, **kwargs)
        for prefix, conditioner in self.conditioners().items():
            saved |= {prefix + name: value for name, value in conditioner.state_dict().items()}
        return saved


class StableAudio1(_Timed):
    """Text as tokens, and when the sound begins and how long it is, in seconds, as two more and as a vector."""

    def __init__(
        self, model_config: Any, model_type: ModelType = ModelType.V_PREDICTION_CONTINUOUS, device: torch.device | None = None
    ) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(AudioDiffusionTransformer))
        width = model_config.unet_config["cond_token_dim"]
        self.seconds_start_embedder = NumberConditioner(width, max_val=LONGEST)
        self.seconds_total_embedder = NumberConditioner(width, max_val=LONGEST)

    def conditioners(self) -> dict[str, NumberConditioner]:
        """The two."""
        both = {"seconds_start": self.seconds_start_embedder, "seconds_total": self.seconds_total_embedder}
        return {f"{CONDITIONERS}{name}.": conditioner for name, conditioner in both.items()}

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


class StableAudio3(_Timed):
    """Text as tokens, filled up with a learned one, and how long the sound is as one more and as a vector; beside the latent what of a
    sound is known, and where.
    """

    padding_embedding: torch.nn.Parameter | None

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(AudioDiffusionTransformer))
        settings = model_config.unet_config
        kind = settings["timestep_features_type"]
        self.seconds_total_embedder = NumberConditioner(settings["cond_token_dim"], max_val=THIRD_LONGEST, fourier_features_type=kind)
        self.register_parameter(PADDING, None)

    def conditioners(self) -> dict[str, NumberConditioner]:
        """The one."""
        return {f"{CONDITIONERS}seconds_total.": self.seconds_total_embedder}

    def load_further(self, source: WeightSource) -> None:
        """The token that texts are filled up with, where there is one."""
        shape = source.shapes().get(PROMPT + PADDING)
        if shape is None:
            return
        held = torch.nn.ParameterDict({PADDING: torch.nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)})
        load_published(held, PrefixedSource(source, PROMPT), torch.float32, "the padding of Stable Audio's texts")
        self.padding_embedding = held[PADDING]

    def concat_cond(self, **kwargs: Any) -> torch.Tensor:
        """1 where a sound (``concat_latent_image``) is known, and its latent: B x (1 + C) x T."""
        noise, mask = kwargs["noise"], kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        known = kwargs.get("concat_latent_image")
        known = torch.zeros_like(noise) if known is None else self.process_latent_in(known).to(noise)
        here = torch.zeros_like(noise)[:, :1] if mask is None else 1.0 - mask.to(noise).mean(dim=1, keepdim=True)
        parts = [comfy.utils.resize_to_batch_size(part, len(noise)) for part in (here, known)]
        for part in parts:
            if part.shape[2:] != noise.shape[2:]:
                found, wanted = list(part.shape[2:]), list(noise.shape[2:])
                raise ValueError(f"Stable Audio 3: a sound or its mask is of {found} places, the latent of {wanted}; make them as long")
        return torch.cat(parts, dim=1)

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """The time as ``global_embed``, and behind the text; without a node the sound is as long as the latent."""
        device, text = kwargs["device"], kwargs.get("cross_attn")
        whole = int(kwargs["noise"].shape[-1] / THIRD_PLACES_PER_SECOND)
        total = self.seconds_total_embedder([kwargs.get("seconds_total", whole)])[0].to(device)
        conds: dict[str, comfy.conds.CONDRegular] = {"local_add_cond": comfy.conds.CONDNoiseShape(self.concat_cond(**kwargs))}
        conds["global_embed"] = comfy.conds.CONDRegular(total.flatten(1))
        if text is not None:
            made_by.check_context(text, self.context_width(), self.said())
            text = self._filled_up(text.to(device))
            conds["c_crossattn"] = comfy.conds.CONDRegular(torch.cat((text, total.expand(len(text), -1, -1)), dim=1))
        return conds

    def _filled_up(self, text: torch.Tensor) -> torch.Tensor:
        missing = TEXT_TOKENS - text.shape[1]
        if self.padding_embedding is None or missing <= 0:
            return text
        return torch.cat((text, self.padding_embedding.to(text).view(1, 1, -1).expand(len(text), missing, -1)), dim=1)

    def state_dict_for_saving(self, *arguments: Any, **kwargs: Any) -> dict[str, Any]:
        """Also the token that texts are filled up with."""
        saved = super().state_dict_for_saving(*arguments, **kwargs)
        return saved if self.padding_embedding is None else {**saved, PROMPT + PADDING: self.padding_embedding.data}
