"""Nodes of Wan-Move: tracks of points, and videos of Wan whose parts follow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras import point_tracks
from comfy_extras.node_extension import extension_of
from comfy_extras.wan_conditioning import (
    FRAMES_PER_CELL,
    cells,
    empty_video,
    fitted,
    grey_video,
    seen_input,
    video_schema,
    with_sight,
    with_values,
)
from comfy_extras.wan_track_nodes import read_tracks

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import Output
    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning
    from comfy_extras.point_tracks import Tracks

torch = lazy_module("torch")

CATEGORY = "model/conditioning/wan/move"
PIXELS_PER_CELL = 8
FROM_MIDDLE = "Where the curve turns, as a share of the {}; only with 'bezier'."
SPREAD = "How far the tracks lie apart, across the direction they move in, as a share of the mean of width and height."


def _tracks_outputs(length: bool = True) -> list[io.Output]:
    return [io.Tracks.Output(), *([io.Int.Output(display_name="track_length")] if length else [])]


class WanMoveTrackToVideo(io.ComfyNode):
    """Makes a video begin with a picture, parts of which follow tracks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = video_schema("WanMoveTrackToVideo", "/move")
        strength = io.Float.Input("strength", default=1.0, min=0.0, max=100.0, step=0.01, tooltip="How much the tracks count.")
        sides, sizes = schema.inputs[:3], schema.inputs[3:]
        schema.inputs = [*sides, io.Tracks.Input("tracks", optional=True), strength, *sizes, io.Image.Input("start_image"), seen_input()]
        return schema

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        vae: VAE,
        width: int,
        height: int,
        length: int,
        batch_size: int,
        strength: float,
        tracks: Tracks | None = None,
        start_image: Tensor | None = None,
        clip_vision_output: Output | None = None,
    ) -> io.NodeOutput:
        """The conditionings with the picture's latent, whose values are laid along the tracks; and an empty latent."""
        sides = (positive, negative)
        if start_image is not None:
            begun = fitted(start_image[:length], width, height)
            video = grey_video(length, width, height, begun)
            video[: len(begun)] = begun
            latent = vae.encode(video)
            free = torch.ones((1, 1, cells(length), *latent.shape[-2:]), device=latent.device, dtype=latent.dtype)
            free[:, :, : cells(len(begun))] = 0.0
            if tracks is not None and strength > 0:
                latent = _moved(latent, _places(tracks, length, width, height), strength)
            sides = with_values(sides, {"concat_latent_image": latent, "concat_mask": free})
        return io.NodeOutput(*with_sight(sides, clip_vision_output), empty_video(batch_size, length, width, height))


def _places(tracks: Tracks, length: int, width: int, height: int) -> Tensor:
    """The cell (row, column) of each point in each latent frame, of the first of its frames; -1 for those not to be seen."""
    paths = tracks["track_path"][:length:FRAMES_PER_CELL]
    visible = tracks["track_visibility"][:length:FRAMES_PER_CELL].to(paths.device)
    inside = ((paths >= 0) & (paths < torch.tensor([width, height], device=paths.device))).all(dim=-1)
    rows_columns = (paths.flip(-1) // PIXELS_PER_CELL).long()
    return torch.where((visible & inside)[..., None], rows_columns, -1)


def _moved(latent: Tensor, places: Tensor, strength: float) -> Tensor:
    """*latent* (B x C x cells x rows x columns) with the values of the first cell at each track laid where the track is later.

    A track that is not visible at first takes those of the last row and column, as the authors of the models have it.
    """
    moved = latent.clone()
    places = places[: latent.shape[2]].to(latent.device)
    cell, track = (places[1:] >= 0).all(dim=-1).nonzero().unbind(dim=1)
    rows, columns = places[cell + 1, track].unbind(dim=1)
    values = latent[:, :, 0, places[0, track, 0], places[0, track, 1]]
    there = latent[:, :, cell + 1, rows, columns]
    moved[:, :, cell + 1, rows, columns] = there + (values - there) * strength
    return moved


class WanMoveTracksFromCoords(io.ComfyNode):
    """Tracks from text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        coordinates = io.String.Input("track_coords", force_input=True, default="[]", optional=True)
        inputs = [coordinates, io.Mask.Input("track_mask", optional=True)]
        return io.Schema(node_id="WanMoveTracksFromCoords", category=CATEGORY, inputs=inputs, outputs=_tracks_outputs())

    @classmethod
    def execute(cls, track_coords: str = "[]", track_mask: Tensor | None = None) -> io.NodeOutput:
        """The tracks and their frames. *track_coords* is what ``WanTrackToVideo`` reads. Raises ``ValueError`` for text without a track."""
        points = [track for batch in read_tracks(track_coords) for track in batch if track]
        if not points:
            raise ValueError("track_coords holds no tracks; give a list of points")
        paths, known = point_tracks.from_points(points)
        return io.NodeOutput(point_tracks.tracks_of(paths, track_mask, known), len(paths))


class GenerateTracks(io.ComfyNode):
    """Tracks side by side, straight or along a curve."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def share(name: str, default: float, tooltip: str) -> io.Input:
            return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)

        sides = {"x": "width", "y": "height"}
        ends = [
            share(f"{end}_{axis}", default, f"Where the tracks {verb}, as a share of the {side}.")
            for end, default, verb in (("start", 0.0, "begin"), ("end", 1.0, "end"))
            for axis, side in sides.items()
        ]
        return io.Schema(
            node_id="GenerateTracks",
            search_aliases=["motion paths", "camera movement", "trajectory"],
            display_name="Generate Video Tracks",
            category=CATEGORY,
            inputs=[
                io.Int.Input("width", default=832, min=16, max=4096, step=16),
                io.Int.Input("height", default=480, min=16, max=4096, step=16),
                *ends,
                io.Int.Input("num_frames", default=81, min=1, max=1024),
                io.Int.Input("num_tracks", default=5, min=1, max=100),
                io.Float.Input("track_spread", default=0.025, min=0.0, max=1.0, step=0.001, tooltip=SPREAD),
                io.Boolean.Input("bezier", default=False, tooltip="Whether the tracks bend towards the middle point."),
                *(share(f"mid_{axis}", 0.5, FROM_MIDDLE.format(side)) for axis, side in sides.items()),
                io.Combo.Input("interpolation", options=list(point_tracks.PACES), tooltip="How fast the points move along their tracks."),
                io.Mask.Input("track_mask", optional=True, tooltip="The points are visible in frames in which it holds anything."),
            ],
            outputs=_tracks_outputs(),
        )

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        start_x: float,
        start_y: float,
        mid_x: float,
        mid_y: float,
        end_x: float,
        end_y: float,
        num_frames: int,
        num_tracks: int,
        track_spread: float,
        bezier: bool = False,
        interpolation: str = "linear",
        track_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """The tracks and their frames."""
        start, middle, end = ((x * width, y * height) for x, y in ((start_x, start_y), (mid_x, mid_y), (end_x, end_y)))
        apart = track_spread * (width + height) / 2
        paths = point_tracks.along(start, end, middle if bezier else None, num_frames, num_tracks, apart, interpolation)
        return io.NodeOutput(point_tracks.tracks_of(paths, track_mask), num_frames)


class WanMoveConcatTrack(io.ComfyNode):
    """Two sets of tracks as one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[io.Input] = [io.Tracks.Input("tracks_1"), io.Tracks.Input("tracks_2", optional=True)]
        return io.Schema(node_id="WanMoveConcatTrack", category=CATEGORY, inputs=inputs, outputs=_tracks_outputs(length=False))

    @classmethod
    def execute(cls, tracks_1: Tracks, tracks_2: Tracks | None = None) -> io.NodeOutput:
        """All tracks of both."""
        return io.NodeOutput(tracks_1 if tracks_2 is None else point_tracks.joined(tracks_1, tracks_2))


class WanMoveVisualizeTracks(io.ComfyNode):
    """Draws tracks over a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WanMoveVisualizeTracks",
            category=CATEGORY,
            inputs=[
                io.Image.Input("images"),
                io.Tracks.Input("tracks", optional=True),
                io.Int.Input("line_resolution", default=24, min=1, max=1024),
                io.Int.Input("circle_size", default=12, min=1, max=128, advanced=True),
                io.Float.Input("opacity", default=0.75, min=0.0, max=1.0, step=0.01),
                io.Int.Input("line_width", default=16, min=1, max=128, advanced=True),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls, images: Tensor, line_resolution: int, circle_size: int, opacity: float, line_width: int, tracks: Tracks | None = None
    ) -> io.NodeOutput:
        """The video with the tracks; *line_resolution* is for how many frames a line shows where a point was."""
        if tracks is None:
            return io.NodeOutput(images)
        return io.NodeOutput(point_tracks.drawn(images, tracks, line_resolution, circle_size, opacity, line_width))


comfy_entrypoint = extension_of(WanMoveTrackToVideo, WanMoveTracksFromCoords, WanMoveConcatTrack, WanMoveVisualizeTracks, GenerateTracks)
