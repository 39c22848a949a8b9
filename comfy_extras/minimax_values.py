"""What MiniMax H3's nodes share: sizes and lengths that the model makes, pictures and sounds for its autoencoders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy import model_management
from comfy.audio.resampling import resampled
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.audio_values import Audio
    from comfy_extras.node_values import Latent

torch = lazy_module("torch")
nested_tensor = lazy_module("comfy.nested_tensor")

FPS, AUDIO_LATENTS_PER_S, AUDIO_RATE_HZ = 24, 40, 32000
CHANNELS, AUDIO_CHANNELS, SIDE = 24, 32, 16  # of latents, and pixels of a cell along one side
GRID = 32
CLIP, CLIP_CELLS, SHORTEST, SHORTEST_CELLS = 17, 5, 5, 2  # a video is some clips of 17 frames, 5 latent ones each, and 5 frames, 2 of them
SHORT_SIDE, MOST_PIXELS = 768, 768 * 1344
CATEGORY = "model/conditioning/minimax"


def size_inputs(length_help: str) -> list[io.Input]:
    """Width, height and length, the last explained by *length_help*."""
    sides = [io.Int.Input(name, default=side, min=GRID, max=MAX_RESOLUTION, step=GRID) for name, side in (("width", 1344), ("height", 768))]
    return [*sides, io.Int.Input("length", default=124, min=SHORTEST, max=3600, step=CLIP, tooltip=length_help)]


def whole_length(frames: int) -> int:
    """The fewest frames that the model makes and that are at least *frames*."""
    return max(frames, SHORTEST) + (SHORTEST - max(frames, SHORTEST)) % CLIP


def usable_length(frames: int) -> int:
    """The most frames up to *frames* (5 or more) that the model can be shown as one clip."""
    return frames - (frames - SHORTEST) % CLIP


def empty_with_sound(width: int, height: int, length: int) -> tuple[Latent, int]:
    """An empty latent of a video of *length* frames, rounded up, with its sound; and the number of frames."""
    frames = whole_length(length)
    cells = (frames - SHORTEST) // CLIP * CLIP_CELLS + SHORTEST_CELLS
    shapes = ((1, CHANNELS, cells, height // SIDE, width // SIDE), (1, AUDIO_CHANNELS, 2, round(frames / FPS * AUDIO_LATENTS_PER_S)))
    device = model_management.intermediate_device()
    return {"samples": nested_tensor.NestedTensor(torch.zeros(shape, device=device) for shape in shapes)}, frames


def on_grid(width: float, height: float) -> tuple[int, int]:
    """Both sides in the nearest multiples of the grid, at least one."""
    width, height = (max(GRID, round(side / GRID) * GRID) for side in (width, height))
    return int(width), int(height)


def canvas(width: int, height: int) -> tuple[int, int]:
    """The size in which the model looks at a video of *width* x *height*: as near to its own as the proportions allow, never larger."""
    scale = SHORT_SIDE / min(width, height)
    scale *= min(1.0, math.sqrt(MOST_PIXELS / (width * scale * height * scale)))
    wide, high = on_grid(width * scale, height * scale)
    return (wide, high) if width * height >= wide * high else on_grid(width, height)


def in_size(image: Tensor, width: int, height: int, crop: str) -> Tensor:
    """The colours of *image* (B x H x W x C) in another size, stretched ("disabled") or cut around the middle ("center")."""
    return comfy.utils.common_upscale(image[..., :3].movedim(-1, 1), width, height, "lanczos", crop).movedim(1, -1)


def encoded_sound(vae: VAE, audio: Audio) -> Tensor:
    """The latent of the first sound of *audio*: 1 x 32 x 2 x times."""
    rate = getattr(vae, "audio_sample_rate", AUDIO_RATE_HZ)
    waveform = resampled(audio["waveform"][:1], audio["sample_rate"], rate)
    return vae.encode(waveform.movedim(1, -1))


def video_of(latent: Any) -> Any:
    """The video and the sound of a latent that :func:`empty_with_sound` made, or that came of it. Raises ``ValueError`` for others."""
    parts = latent.unbind() if latent.is_nested else []
    if len(parts) != 2 or parts[0].ndim != 5 or parts[0].shape[1] != CHANNELS:
        raise ValueError("MiniMaxH3AddGuide takes a latent of MiniMax H3, with a video and its sound; use Empty MiniMax H3 AV Latent")
    return parts
