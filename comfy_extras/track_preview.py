"""Frames of a video in which followed things are shown in colours, with their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.coloured_tracks import Track, masks_of

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
pil_draw = lazy_module("PIL.ImageDraw")
pil_font = lazy_module("PIL.ImageFont")
pil_image = lazy_module("PIL.Image")
torch = lazy_module("torch")

# Colours that are told apart well, in the order of the things' numbers.
COLOURS = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (140, 86, 75),
    (227, 119, 194),
    (127, 127, 127),
    (188, 189, 34),
    (23, 190, 207),
)
SMALLEST, SHARE = 10, 24  # of a number: its least height, and the share of the frame's that it has


def drawn_frames(track: Track, images: Tensor | None, opacity: float) -> Iterator[Any]:
    """Each frame, height x width x 3, uint8: those of *images*, or black ones of the track's size, with things in colours of *opacity*."""
    masks = masks_of(track)
    height, width = track["orig_size"] if images is None else images.shape[1:3]
    for number in range(track["n_frames"] if masks is None else len(masks)):
        known = images is not None and number < len(images)
        frame = images[number, ..., :3].float().cpu() if known and images is not None else torch.zeros(height, width, 3)
        if masks is None:
            yield _levels(frame)
            continue
        shown = torch.nn.functional.interpolate(masks[number : number + 1].float().cpu(), size=(height, width), mode="nearest")[0] > 0.5
        colours = torch.tensor([COLOURS[thing % len(COLOURS)] for thing in range(len(shown))]) / 255
        inside = colours[shown.to(torch.uint8).argmax(dim=0)]
        frame = torch.where(shown.any(dim=0)[..., None], frame * (1 - opacity) + inside * opacity, frame)
        yield _numbered(_levels(frame), shown, track.get("scores", []))


def _levels(frame: Tensor) -> Any:
    return (frame.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _numbered(levels: Any, shown: Tensor, scores: list[float]) -> Any:
    """*levels* with the number of each thing at its middle, and how sure its find was, in hundredths."""
    picture = pil_image.fromarray(levels)
    pen, font = pil_draw.Draw(picture), pil_font.load_default(max(SMALLEST, len(levels) // SHARE))
    for thing, mask in enumerate(shown):
        places = mask.nonzero()
        if not len(places):
            continue
        row, column = places.float().mean(dim=0).tolist()
        sure = f"\n{int(scores[thing] * 100)}" if thing < len(scores) and scores[thing] < 1.0 else ""
        pen.text((column, row), f"{thing}{sure}", fill=COLOURS[thing % len(COLOURS)], font=font, anchor="mm", stroke_width=1, stroke_fill=0)
    return numpy.asarray(picture)
