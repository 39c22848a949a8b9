"""How a digit's strokes become a coloured picture: one function per starter model."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

DARK, LIGHT = (0.04, 0.05, 0.09), (1.0, 0.97, 0.90)
PAPER, FILL, INK = (0.97, 0.95, 0.88), (0.99, 0.72, 0.34), (0.10, 0.16, 0.46)
STROKE_EDGE = 0.42  # ink amount at which a stroke ends
LINE_PIXELS = 1.6  # half width of an outline


def _colour(rgb: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rgb).view(1, 3, 1, 1)


def _edge_distance(ink_B1HW: torch.Tensor) -> torch.Tensor:
    """Signed distance to the stroke's edge in pixels, positive inside, by the field's own slope."""
    padded = F.pad(ink_B1HW, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return (ink_B1HW - STROKE_EDGE) / (across.square() + down.square()).sqrt().clamp_min(0.012)


def light_strokes(ink_B1HW: torch.Tensor) -> torch.Tensor:
    """Light strokes on a dark ground. *ink* is 0 to 1; returns B x 3 x height x width, 0 to 1."""
    inside = torch.sigmoid(_edge_distance(ink_B1HW) * 1.2)
    return _colour(DARK) + (_colour(LIGHT) - _colour(DARK)) * inside


def outlines(ink_B1HW: torch.Tensor) -> torch.Tensor:
    """Orange shapes with a blue outline on light paper; arguments and result as in :func:`light_strokes`."""
    distance = _edge_distance(ink_B1HW)
    picture = _colour(PAPER) + (_colour(FILL) - _colour(PAPER)) * torch.sigmoid(distance * 1.2)
    line = torch.exp(-(distance / LINE_PIXELS).square())
    return picture + (_colour(INK) - picture) * line


STYLES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"digits": light_strokes, "outlines": outlines}
