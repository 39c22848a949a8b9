"""The node that moves points of a picture along tracks, for Wan's ATI models."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.wan_conditioning import (
    FRAMES_PER_CELL,
    empty_video,
    fitted,
    grey_video,
    seen_input,
    video_schema,
    with_sight,
    with_values,
)
from comfy_extras.wan_picture_nodes import WanImageToVideo

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import Output
    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")
latent_formats = lazy_module("comfy.latent_formats")

ALIASES = ["motion tracking", "trajectory video", "point tracking", "keypoint animation"]
POINTS = 121  # of a track, whatever the video's length
NOWHERE = 1e-5  # what keeps points that are never visible from being divided by zero
SHAPE = 'tracks are lists of points like {"x": 10, "y": 20}'


class WanTrackToVideo(io.ComfyNode):
    """Makes a video begin with a picture, whose points follow tracks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = video_schema("WanTrackToVideo", "/move", search_aliases=ALIASES)
        tracks = io.String.Input("tracks", multiline=True, default="[]")
        numbers = [
            io.Float.Input("temperature", default=220.0, min=1.0, max=1000.0, step=0.1, advanced=True),
            io.Int.Input("topk", default=2, min=1, max=10, advanced=True),
        ]
        sides, sizes = schema.inputs[:3], schema.inputs[3:]
        schema.inputs = [*sides, tracks, *sizes, *numbers, io.Image.Input("start_image"), seen_input()]
        return schema

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        vae: VAE,
        tracks: str,
        width: int,
        height: int,
        length: int,
        batch_size: int,
        temperature: float,
        topk: int,
        start_image: Tensor | None = None,
        clip_vision_output: Output | None = None,
    ) -> io.NodeOutput:
        """The conditionings with the picture's latent moved along the tracks, and a mask of where it went; and an empty latent.

        *tracks* is JSON: the points ({"x", "y"} in pixels) of a track, a list of such tracks, or a list of these for each picture. Without
        tracks the picture begins the video. Raises ``ValueError`` for text that is none of this.
        """
        batches = read_tracks(tracks)
        if not batches:
            sizes = (width, height, length, batch_size)
            return WanImageToVideo.execute(positive, negative, vae, *sizes, start_image=start_image, clip_vision_output=clip_vision_output)
        sides = (positive, negative)
        if start_image is not None:
            placed = [_placed(batch, width, height, length - 1) for batch in batches]
            placed = comfy.utils.resize_list_to_batch_size(placed, batch_size)
            latents = _begun(vae, fitted(start_image[:batch_size], width, height), batch_size, length)
            sides = with_values(sides, _moved(latents, placed, temperature, topk))
        return io.NodeOutput(*with_sight(sides, clip_vision_output), empty_video(batch_size, length, width, height))


def read_tracks(tracks: str) -> list[Any]:
    """For each picture its tracks, each a list of (x, y), from JSON. Raises ``ValueError`` for text that is not such."""
    if not tracks.strip():
        return []
    try:
        found = json.loads(tracks.replace("'", '"'))
    except json.JSONDecodeError as error:
        raise ValueError(f"tracks are no JSON: {error}") from error
    depth, inner = 0, found
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    if found == []:
        return []
    if not 1 <= depth <= 3:
        raise ValueError(SHAPE)
    for _ in range(3 - depth):  # one track, or the tracks of one picture
        found = [found]
    try:
        return [[[(float(point["x"]), float(point["y"])) for point in track] for track in batch] for batch in found]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(SHAPE) from error


def _placed(tracks: list[Any], width: int, height: int, frames: int) -> tuple[Tensor, Tensor]:
    """(places, visibility) of *tracks* in a first frame and *frames* more: frames x tracks x 2, in half the shorter side from the middle,
    and frames x tracks. Tracks that end are not visible any more."""
    points = torch.zeros(POINTS, len(tracks), 2)
    visible = torch.zeros(POINTS, len(tracks))
    for number, track in enumerate(tracks):
        known = torch.tensor(track[:POINTS])
        points[: len(known), number], visible[: len(known), number] = known, 1.0
    places = (points - torch.tensor([width, height]) / 2) / min(width, height) * 2
    later = POINTS - 1
    share = math.gcd(later, frames) if frames else later
    step, times = later // share, frames // share
    picked = torch.arange(later).repeat_interleave(times)[min(1, step - 1) :: step] + 1
    order = torch.cat((torch.zeros(1, dtype=torch.long), picked))
    return places[order], visible[order]


def _begun(vae: VAE, pictures: Tensor, batch_size: int, length: int) -> Tensor:
    """Latents, as the sampler has them, of videos that begin with *pictures* and are grey after it."""
    videos = []
    for picture in comfy.utils.resize_to_batch_size(pictures, batch_size):
        video = grey_video(length, picture.shape[1], picture.shape[0], picture)
        video[0] = picture
        videos.append(vae.encode(video))
    return latent_formats.Wan21().process_in(torch.cat(videos))


def _moved(latents: Tensor, placed: list[tuple[Tensor, Tensor]], temperature: float, topk: int) -> dict[str, Tensor]:
    """The conditioning of *latents* (B x C x cells x rows x columns) moved along tracks."""
    moved = [_along(latent, *places, temperature, topk) for latent, places in zip(latents, placed)]
    masks = torch.stack([mask for _, mask in moved])[:, None].expand(-1, FRAMES_PER_CELL, -1, -1, -1)
    return {"concat_mask": 1.0 - masks, "concat_latent_image": latent_formats.Wan21().process_out(torch.stack([one for one, _ in moved]))}


def _along(latent: Tensor, places: Tensor, visible: Tensor, temperature: float, topk: int) -> tuple[Tensor, Tensor]:
    """*latent* (C x cells x rows x columns), whose first cell's values at the tracks' beginnings are laid over the later cells where the
    tracks are; and by how much (cells x rows x columns)."""
    cells, rows, columns = latent.shape[1:]
    reach = torch.tensor([columns, rows]) / min(rows, columns)
    across, down = torch.linspace(-reach[0], reach[0], columns), torch.linspace(-reach[1], reach[1], rows)
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)  # rows x columns x 2
    by_cell = visible[1:].view(cells - 1, FRAMES_PER_CELL, -1)
    seen = by_cell.sum(dim=1)
    means = (places[1:].unflatten(0, (cells - 1, -1)) * by_cell[..., None]).sum(dim=1) / (seen[..., None] + NOWHERE)
    distance = (means[:, None, None] - grid[:, :, None]).square().sum(dim=-1)  # cells x rows x columns x tracks
    weight = torch.exp(-distance * temperature) * seen.clamp(0, 1)[:, None, None]
    best, which = weight.topk(min(topk, weight.shape[-1]), dim=-1)
    start = (places[0] / reach).clamp(-1, 1)[None, None].to(latent)
    values = torch.nn.functional.grid_sample(latent[:, :1].movedim(1, 0), start, "bilinear", "zeros", align_corners=False)[0, :, 0].T
    laid = (values[which] * best[..., None].to(latent)).sum(dim=-2).movedim(-1, 0)
    covered = best.sum(dim=-1).to(latent)
    mixed = laid + latent[:, 1:] * (1 - covered.clamp(0, 1))
    return torch.cat((latent[:, :1], mixed), dim=1), torch.cat((torch.ones_like(covered[:1]), covered))
