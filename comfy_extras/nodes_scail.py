"""The nodes of SCAIL: figures in a picture that move as poses in a video, and the coloured masks that say who is who."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.coloured_tracks import ORDERS, Track, TrackType, coloured, coloured_mask, numbers_in, only, ordered
from comfy_extras.node_extension import extension_of
from comfy_extras.node_inputs import MAX_RESOLUTION
from comfy_extras.wan_conditioning import (
    FRAMES_PER_CELL,
    cells,
    empty_video,
    fitted,
    image_inputs,
    put_first,
    seen_input,
    share_input,
    video_schema,
    with_sight,
    with_values,
)

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import Output
    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")

FULL = 225 / 255  # what a colour has at least where it is on
FIGURE = 0.1  # what the brightest colour has at least where a mask shows a figure
SEVEN = (
    (1, 1, 1),
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (1, 1, 0),
    (1, 0, 1),
    (0, 1, 1),
)  # the colours that stand for figures, in red, green, blue
REPLACED = (
    "For SCAIL-2: whether figures of pose_video are replaced, whose mask then has a white background; otherwise figures of the picture "
    "move, and it has a black one."
)
REFERENCES = "What the figures look like. For SCAIL-2 further pictures may show them from elsewhere, or what is behind them."


def _masks_input(name: str, tooltip: str) -> io.Input:
    return io.Image.Input(name, optional=True, tooltip=f"For SCAIL-2: {tooltip}, each figure in a colour of its own.")


class WanSCAILToVideo(io.ComfyNode):
    """Prepares pictures of figures and the video of poses that they are to follow."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        whole: dict[str, Any] = {"max": MAX_RESOLUTION}
        return video_schema(
            "WanSCAILToVideo",
            "/scail",
            io.Image.Input("pose_video", optional=True, tooltip="The poses; scaled to half the sides of the new video."),
            _masks_input("pose_video_mask", "the figures in pose_video"),
            io.Boolean.Input("replacement_mode", default=False, optional=True, tooltip=REPLACED),
            share_input("pose_strength", 1.0, 10.0, "How much the poses count."),
            share_input("pose_start", 0.0, 1.0, "From which share of the sampling on they count."),
            share_input("pose_end", 1.0, 1.0, "Up to which share of the sampling they count."),
            io.Image.Input("reference_image", optional=True, tooltip=REFERENCES),
            _masks_input("reference_image_mask", "the figures in reference_image, as many pictures"),
            seen_input(),
            io.Int.Input("video_frame_offset", default=0, min=0, step=1, **whole, tooltip="Frames of pose_video that are passed over."),
            io.Int.Input(
                "previous_frame_count",
                default=5,
                min=1,
                step=4,
                **whole,
                tooltip="With how many frames of previous_frames the video begins.",
            ),
            *image_inputs("previous_frames"),
            sides=(512, 896, 32),
            outputs=(io.Int.Output(display_name="video_frame_offset", tooltip="Frames of pose_video that are used up."),),
            is_experimental=True,
        )

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
        pose_strength: float,
        pose_start: float,
        pose_end: float,
        video_frame_offset: int,
        previous_frame_count: int,
        replacement_mode: bool = False,
        reference_image: Tensor | None = None,
        clip_vision_output: Output | None = None,
        pose_video: Tensor | None = None,
        pose_video_mask: Tensor | None = None,
        reference_image_mask: Tensor | None = None,
        previous_frames: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings, a latent that begins with *previous_frames*, and the offset of the next video.

        Poses and their mask are cut to the shorter of both, and to a whole number of latent frames; those that have ended do not count.
        """
        latent = empty_video(batch_size, length, width, height)
        if previous_frames is not None and len(previous_frames):
            before = previous_frames[-previous_frame_count:]
            video_frame_offset = max(0, video_frame_offset - len(before))
            encoded = vae.encode(fitted(before, width, height, "bicubic"))
            latent["samples"] = put_first(latent["samples"], encoded)
            free = torch.ones(1, 1, *latent["samples"].shape[2:], device=latent["samples"].device)
            free[:, :, : encoded.shape[2]] = 0.0
            latent["noise_mask"] = free
        sides = with_values((positive, negative), {"ref_mask_flag": not replacement_mode})
        if reference_image is not None:
            pictures = fitted(reference_image, width, height, "bicubic")
            values: dict[str, Any] = {}
            if reference_image_mask is not None:
                figures = fitted(reference_image_mask, width, height, "nearest-exact")
                figures = figures[torch.arange(len(pictures)).clamp(max=len(figures) - 1)]
                values["ref_mask_28ch"] = _before_video(figures, cells(length))
                if replacement_mode:
                    pictures = pictures * (figures.amax(dim=-1, keepdim=True) > FIGURE)
            sides = with_values(sides, {"reference_latents": [vae.encode(picture[None]) for picture in pictures]}, append=True)
            sides = with_values(sides, values)
        sides = with_sight(sides, clip_vision_output)
        poses, masks = _together(pose_video, pose_video_mask, video_frame_offset, length)
        half = (width // 2, height // 2, "area")
        if masks is not None:
            sides = with_values(sides, {"driving_mask_28ch": _channels(fitted(masks, *half))})
        both: tuple[Conditioning, ...] = sides
        if poses is not None:
            shown = {"pose_video_latent": vae.encode(fitted(poses, *half)) * pose_strength}
            both = tuple(node_helpers.conditioning_set_values_with_timestep_range(side, shown, pose_start, pose_end) for side in sides)
        return io.NodeOutput(*both, latent, video_frame_offset + length)


def _together(poses: Tensor | None, masks: Tensor | None, offset: int, length: int) -> tuple[Tensor | None, Tensor | None]:
    """Both from *offset* on, as long as the shorter one; None for what has ended."""
    left = [None if video is None or len(video) <= offset else video[offset:] for video in (poses, masks)]
    whole = (cells(min([length, *(len(video) for video in left if video is not None)])) - 1) * FRAMES_PER_CELL + 1
    poses, masks = (None if video is None else video[:whole] for video in left)
    return poses, masks


def _channels(video: Tensor) -> Tensor:
    """Which of the seven colours *video* (F x H x W x 3) has where: 1 x latent frames x 28 x rows x columns, the first frame four times."""
    on = video > FULL
    found = torch.stack([(on == torch.tensor(colour, device=on.device).bool()).all(dim=-1) for colour in SEVEN], dim=1).float()
    rows, columns = (-(-side // 8) for side in found.shape[-2:])
    found = torch.nn.functional.interpolate(found, size=(rows, columns), mode="area")
    found = torch.cat((found[:1].expand(FRAMES_PER_CELL - 1, -1, -1, -1), found))
    return found.reshape(1, -1, FRAMES_PER_CELL * len(SEVEN), rows, columns)


def _before_video(figures: Tensor, frames: int) -> Tensor:
    """The channels of the pictures *figures*, the first of them last, and nothing for *frames* of a video after it."""
    channels = [_channels(picture[None]) for picture in (*figures[1:], figures[0])]
    return torch.cat((*channels, channels[0].new_zeros(1, frames, *channels[0].shape[2:])), dim=1)


class SCAIL2ColoredMask(io.ComfyNode):
    """Makes the masks that WanSCAILToVideo takes of tracks: each figure has the same colour in the video and in the pictures of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        order = "The order in which figures get their colours; those that appear first always come first."
        replaced = "Whether the figures of the video are replaced: its mask has a white background then, that of the pictures a black one."
        return io.Schema(
            node_id="SCAIL2ColoredMask",
            display_name="Create SCAIL-2 Colored Mask",
            category="model/conditioning/wan/scail",
            inputs=[
                TrackType.Input("driving_track_data", tooltip="The figures in the video of poses."),
                io.MultiType.Input(
                    "ref_track_data",
                    [TrackType, io.Mask],
                    optional=True,
                    display_name="reference_masks",
                    tooltip="The figures in the pictures of them; or masks, all of one figure.",
                ),
                io.String.Input("object_indices", default="", tooltip="The numbers of figures in that order (0, 2, 3); empty: all."),
                io.Combo.Input("sort_by", options=list(ORDERS), default="left_to_right", tooltip=order),
                io.Boolean.Input("replacement_mode", default=False, tooltip=replaced),
            ],
            outputs=[io.Image.Output("pose_video_mask"), io.Image.Output("reference_image_mask")],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls, driving_track_data: Track, object_indices: str, sort_by: str, replacement_mode: bool, ref_track_data: Any = None
    ) -> io.NodeOutput:
        """Both masks, frames x height x width x 3; without pictures a plain one stands for theirs."""
        behind_video, behind_pictures = (1.0, 0.0) if replacement_mode else (0.0, 1.0)
        video = coloured(_chosen(driving_track_data, object_indices, sort_by), behind_video)
        if isinstance(ref_track_data, torch.Tensor):
            return io.NodeOutput(video, coloured_mask(ref_track_data, behind_pictures))
        pictures = {**driving_track_data, "packed_masks": None, "n_frames": 1}
        if ref_track_data is not None:
            pictures = _chosen(ref_track_data, object_indices, sort_by)
        return io.NodeOutput(video, coloured(pictures, behind_pictures))


def _chosen(track: Track, numbers: str, order: str) -> Track:
    track = ordered(track, order)
    if not numbers.strip():
        return track
    packed = track["packed_masks"]
    return only(track, numbers_in(numbers, 0 if packed is None else packed.shape[1]))


comfy_entrypoint = extension_of(WanSCAILToVideo, SCAIL2ColoredMask)
