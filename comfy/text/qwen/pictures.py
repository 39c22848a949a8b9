"""Pictures among the tokens of Qwen2.5-VL: the patches it looks at, and where its tokens stand among those of the text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
LEAST_PIXELS, MOST_PIXELS = 3136, 12845056
MERGED = 2  # patches along a side that become one token


def fitting_size(height: int, width: int, patch: int) -> tuple[int, int]:
    """Height and width near the given ones, in whole tokens, within the numbers of pixels that the model knows."""
    cell = patch * MERGED
    fitted = round(height / cell) * cell, round(width / cell) * cell
    if math.prod(fitted) > MOST_PIXELS:
        shrink = math.sqrt(height * width / MOST_PIXELS)
        return max(cell, math.floor(height / shrink / cell) * cell), max(cell, math.floor(width / shrink / cell) * cell)
    if math.prod(fitted) < LEAST_PIXELS:
        grow = math.sqrt(LEAST_PIXELS / (height * width))
        return math.ceil(height * grow / cell) * cell, math.ceil(width * grow / cell) * cell
    return fitted


def picture_patches(
    images: torch.Tensor, patch: int, frames: int, mean: Sequence[float] = MEAN, deviation: Sequence[float] = DEVIATION
) -> tuple[torch.Tensor, torch.Tensor]:
    """(patches x values, grid) of the first of *images* (B x height x width x 3 in 0…1), which stands still for *frames*.

    The grid, 1 x 3, says how many patches there are in time, down and across. Patches of one token follow each other. *mean* and
    *deviation* of the three colours become 0 and 1.
    """
    size = fitting_size(images.shape[1], images.shape[2], patch)
    picture = F.interpolate(images[:1].movedim(-1, 1), size=size, mode="bilinear", align_corners=False)[0]
    centre, spread = (picture.new_tensor(values)[:, None, None] for values in (mean, deviation))
    picture = (picture - centre) / spread
    rows, columns = size[0] // patch, size[1] // patch
    cells = picture.reshape(len(picture), rows // MERGED, MERGED, patch, columns // MERGED, MERGED, patch)
    ordered = cells.permute(1, 4, 2, 5, 0, 3, 6)  # token row, token column, row and column within, channel, y, x
    still = ordered.unsqueeze(5).expand(*ordered.shape[:5], frames, *ordered.shape[5:])
    grid = torch.tensor([[1, rows, columns]], dtype=torch.long, device=images.device)
    return still.reshape(rows * columns, -1), grid


def token_positions(pictures: Sequence[Mapping[str, Any]], length: int, device: torch.device) -> torch.Tensor:
    """Frame, row and column of *length* tokens: 3 x tokens.

    *pictures*: of each its first token ``index``, its ``size`` in tokens and its grid as ``extra``. Text counts up in all three; a
    picture's tokens share a frame, and the text after it goes on beyond its longer side.
    """
    parts, done, place = [], 0, 0
    for picture in pictures:
        text, size = int(picture["index"]) - done, int(picture["size"])
        parts.append(_text_positions(place, text, device))
        place += text
        rows, columns = (int(side) // MERGED for side in picture["extra"][0][1:])
        number = torch.arange(size, device=device)
        where = (torch.zeros_like(number), number // columns, number % columns)
        parts.append(place + torch.stack(where))
        place += max(rows, columns)
        done += text + size
    return torch.cat([*parts, _text_positions(place, length - done, device)], dim=1)


def _text_positions(start: int, count: int, device: torch.device) -> torch.Tensor:
    return torch.arange(start, start + count, device=device).expand(3, -1)
