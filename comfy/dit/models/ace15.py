"""ACE-Step 1.5 as samplers see it."""

from __future__ import annotations

from typing import Any

import torch

import comfy.conds
from comfy.dit.network import without_weights
from comfy.ldm.ace.ace_step15 import AceStepConditionGenerationModel
from comfy.ldm.ace.silence import get_silence_latent
from comfy.model_base import BaseModel, ModelType


class ACEStep15(BaseModel):
    """Tags and lyrics as tokens; what the music is to be like as codes, or as a latent whose timbre, or also melody, counts."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.FLOW, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device, unet_model=without_weights(AceStepConditionGenerationModel))

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """Besides the usual: text that is never repeated, lyrics, codes, and a reference as long as the latent."""
        conds = super().extra_conds(**kwargs)
        device, places = kwargs["device"], kwargs["noise"].shape[2]
        text, lyrics = kwargs.get("cross_attn"), kwargs.get("conditioning_lyrics")
        if text is not None:
            conds["c_crossattn"] = comfy.conds.CONDRegular(text)
            if not text.any():
                conds["replace_with_null_embeds"] = comfy.conds.CONDConstant(True)
        if lyrics is not None:
            conds["lyric_embed"] = comfy.conds.CONDRegular(lyrics)
        silence = get_silence_latent(places, device)
        references, codes = kwargs.get("reference_audio_timbre_latents"), kwargs.get("audio_codes")
        if references:
            known = references[-1][:, :, :places].to(silence)
            conds["refer_audio"] = comfy.conds.CONDRegular(torch.cat((known, silence[:, :, known.shape[2] :].expand(len(known), -1, -1)), 2))
            conds["is_covers"] = comfy.conds.CONDConstant(True)
            return conds
        conds["refer_audio"] = comfy.conds.CONDRegular(silence)
        if codes is None:
            conds["is_covers"] = comfy.conds.CONDConstant(False)
        else:
            conds["audio_codes"] = comfy.conds.CONDRegular(torch.tensor(codes, device=device))
        return conds
