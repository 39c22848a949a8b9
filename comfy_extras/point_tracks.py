"""Tracks of points through videos: making, joining and drawing them (for ``nodes_wanmove``).

Tracks are {"track_path": frames x tracks x (x, y) in pixels, "track_visibility": frames x tracks}.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

torch = lazy_module("torch")
np = lazy_module("numpy")
pillow_image = lazy_module("PIL.Image")
pillow_draw = lazy_module("PIL.ImageDraw")

Tracks = dict[str, "Tensor"]
Point = tuple[float, float]
PACES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda time: time,
    "ease_in": lambda time: time**2,
    "ease_out": lambda time: 1 - (1 - time) ** 2,
    "ease_in_out": lambda time: time * time * (3 - 2 * time),
    "constant": lambda time: time * 0,
}
COLOURS = ((102, 153, 255), (0, 255, 255), (255, 255, 0), (255, 102, 204), (0, 255, 0))


def tracks_of(paths: Tensor, mask: Tensor | None = None, known: Tensor | None = None) -> Tracks:
    """Tracks along *paths* (frames x tracks x 2), visible where *known* (frames x tracks) and in frames in which *mask* holds anything.

    A mask of one picture counts for all frames. Raises ``ValueError`` for one of too few frames.
    """
    frames, count = paths.shape[:2]
    visible = torch.ones(frames, count, dtype=torch.bool) if known is None else known
    if mask is not None:
        if 1 < len(mask) < frames:
            raise ValueError(f"track_mask has {len(mask)} frames and the tracks have {frames}; give it as many, or one for all")
        visible = visible & (mask[:frames] > 0).flatten(1).any(dim=1)[:, None].to(visible.device)
    return {"track_path": paths, "track_visibility": visible}


def from_points(points: list[list[Point]]) -> tuple[Tensor, Tensor]:
    """(paths, which are known) of lists of points; one that ends sooner than the longest stays where it ended, no longer known."""
    frames = max(len(track) for track in points)
    paths = torch.tensor([track + track[-1:] * (frames - len(track)) for track in points]).movedim(0, 1)
    known = torch.arange(frames)[:, None] < torch.tensor([len(track) for track in points])
    return paths, known


def along(start: Point, end: Point, middle: Point | None, frames: int, tracks: int, spread: float, pace: str) -> Tensor:
    """Paths of *tracks* points side by side, *spread* pixels apart, from *start* to *end*; along a curve that *middle* draws to itself."""
    time = PACES[pace](torch.linspace(0, 1, frames))[:, None]
    first, last = torch.tensor(start), torch.tensor(end)
    if middle is None:
        centre, heading = first + (last - first) * time, (last - first).expand(frames, 2)
    else:
        turn, left = torch.tensor(middle), 1 - time
        centre = left**2 * first + 2 * left * time * turn + time**2 * last
        heading = 2 * left * (turn - first) + 2 * time * (last - turn)
    heading = heading.double()
    length = heading.square().sum(dim=1, keepdim=True).sqrt()
    across = torch.stack((-heading[:, 1], heading[:, 0]), dim=1) / length
    across = torch.where(length > 0, across, torch.tensor([1.0, 0.0]).double())
    offsets = (torch.arange(tracks).double() - (tracks - 1) / 2) * spread
    return (centre.double()[:, None] + across[:, None] * offsets[:, None]).float()


def joined(first: Tracks, second: Tracks) -> Tracks:
    """The tracks of both. Raises ``ValueError`` for such that have not as many frames."""
    lengths = [len(tracks["track_path"]) for tracks in (first, second)]
    if lengths[0] != lengths[1]:
        raise ValueError(f"tracks_1 has {lengths[0]} frames and tracks_2 has {lengths[1]}; give both as many")
    return {name: torch.cat((first[name], second[name]), dim=1) for name in ("track_path", "track_visibility")}


def drawn(pictures: Tensor, tracks: Tracks, trail: int, radius: int, opacity: float, width: int) -> Tensor:
    """*pictures* (F x H x W x C) with a dot for every visible point and a line that fades along where it was in *trail* frames before.

    Pictures that are fewer than the frames of the tracks are repeated.
    """
    paths, visible = (tracks[name].cpu() for name in ("track_path", "track_visibility"))
    videos = pictures.repeat(max(1, len(paths) // len(pictures)), 1, 1, 1)
    frames = (videos[..., :3].cpu() * 255).byte().numpy()
    points = paths.long().tolist()
    made = []
    for time, frame in enumerate(frames):
        dots, lines = (pillow_image.new("RGBA", (frame.shape[1], frame.shape[0])) for _ in range(2))
        for number in visible[time].nonzero()[:, 0].tolist() if time < len(paths) else ():
            colour = COLOURS[number % len(COLOURS)]
            ways = [place[number] for place in points[max(time - trail, 0) : time + 1]]
            x, y = ways[-1]
            box = (x - radius, y - radius, x + radius, y + radius)
            pillow_draw.Draw(dots).ellipse(box, fill=(*colour, int(255 * opacity)))
            _fading(lines, ways[::-1], colour, opacity, width)
        made.append(torch.from_numpy(_laid(_laid(frame, dots), lines).astype(np.uint8)))
    return torch.stack(made).float() / 255


def _fading(image: Image.Image, points: list[list[int]], colour: tuple[int, int, int], opacity: float, width: int) -> None:
    """Draws a line through *points* that becomes thinner and paler up to the last."""
    draw = pillow_draw.Draw(image)
    lengths = [math.dist(one, other) for one, other in zip(points, points[1:])]
    whole, gone = sum(lengths), 0.0
    for (x, y), (to_x, to_y), length in zip(points, points[1:], lengths):
        steps = max(int(length), 1)
        for step in range(steps if whole else 0):
            share = step / steps
            left = 1 - (gone + share * length) / whole
            at = (int(x + (to_x - x) * share), int(y + (to_y - y) * share))
            ink = (*colour, int(255 * left * opacity))
            draw.line([at, (at[0] + 1, at[1])], fill=ink, width=max(int(width * left), 1))
        gone += length


def _laid(below: Any, image: Image.Image) -> Any:
    """*below* (H x W x 3) with *image* over it."""
    above = np.asarray(image)
    share = above[..., 3:] / 255.0
    return above[..., :3] * share + below * (1 - share)
