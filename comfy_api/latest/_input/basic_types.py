"""Images, masks, sound and latents, as annotations that do not import torch."""

from typing import NotRequired, TypedDict

from comfy_api.latest._tensor_type import Tensor

# Images: float [batch, height, width, channel], 0 to 1. Masks: float [batch, height, width], 0 to 1.
ImageInput = Tensor
MaskInput = Tensor


class AudioInput(TypedDict):
    """Sound: ``waveform`` (float [batch, channel, sample], -1 to 1) and ``sample_rate`` (samples per second)."""

    waveform: Tensor
    sample_rate: int


class LatentInput(TypedDict):
    """Latents: ``samples`` [batch, channel, height, width] or with frames; ``type`` names what is neither image nor video."""

    samples: Tensor
    noise_mask: NotRequired[Tensor | None]
    batch_index: NotRequired[list[int] | None]
    type: NotRequired[str]
