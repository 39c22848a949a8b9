"""Pictures as image encoders take them: scaled, cut, rounded to 8 bits and normalised."""

from collections.abc import Sequence

import torch
from torch import Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)


def clip_preprocess(
    image: Tensor, size: int = 224, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD, crop: bool = True
) -> Tensor:
    """*image* (B x height x width x channels, 0…1) as B x 3 x *size* x *size*: scaled, rounded to 8 bits and normalised.

    With *crop* its shape is kept and its middle taken, else it is stretched.
    """
    pictures = image[..., :3].movedim(-1, 1)
    height, width = pictures.shape[-2:]
    if (height, width) != (size, size):
        scale = size / min(height, width)
        target = (round(scale * height), round(scale * width)) if crop else (size, size)
        pictures = torch.nn.functional.interpolate(pictures, size=target, mode="bicubic", antialias=True)
        top, left = (target[0] - size) // 2, (target[1] - size) // 2
        pictures = pictures[..., top : top + size, left : left + size]
    pictures = (255.0 * pictures).clamp(0, 255).round() / 255.0
    means, deviations = (pictures.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (pictures - means) / deviations
