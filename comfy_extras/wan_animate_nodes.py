"""Nodes that make a picture move as a video does (part of ``nodes_wan``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import comfy.utils
import node_helpers
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_inputs import MAX_RESOLUTION
from comfy_extras.wan_conditioning import (
    FRAMES_PER_CELL,
    Sides,
    cells,
    empty_video,
    fitted,
    grey_video,
    image_inputs,
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
    from comfy.patching.patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")
animate2 = lazy_module("comfy.ldm.wan.model_animate2")

CATEGORY = "/animate"
FACE = 512  # pixels of the sides of a face's pictures
GOES_ON = 1  # frames of the video before that the next one begins with


class WanAnimateToVideo(io.ComfyNode):
    """Prepares a picture of a figure, videos of poses and of a face that it follows, and what is around it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        whole: dict[str, Any] = {"max": MAX_RESOLUTION}
        ends = (
            ("trim_latent", "Latent frames to cut off before decoding."),
            ("trim_image", "Frames that overlap with the video before."),
            ("video_frame_offset", "Frames of the videos that are used up."),
        )
        start = "Frames that are passed over in all videos that are given: what the node of the part before says, for videos in parts."
        return video_schema(
            "WanAnimateToVideo",
            CATEGORY,
            seen_input(),
            io.Image.Input("reference_image", optional=True, tooltip="The figure."),
            io.Image.Input("face_video", optional=True, tooltip="The face whose expressions it takes, cut out."),
            io.Image.Input("pose_video", optional=True, tooltip="The poses that it takes, drawn."),
            io.Int.Input(
                "continue_motion_max_frames",
                default=5,
                min=1,
                step=4,
                **whole,
                tooltip="With how many frames of continue_motion it begins.",
            ),
            io.Image.Input("background_video", optional=True, tooltip="What is around the figure."),
            io.Mask.Input("character_mask", optional=True, tooltip="Where the figure is to be: only there background_video changes."),
            io.Image.Input("continue_motion", optional=True, tooltip="The video before, which this one goes on from."),
            io.Int.Input("video_frame_offset", default=0, min=0, step=1, **whole, tooltip=start),
            length=77,
            outputs=tuple(io.Int.Output(display_name=name, tooltip=tooltip) for name, tooltip in ends),
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
        continue_motion_max_frames: int,
        video_frame_offset: int,
        reference_image: Tensor | None = None,
        clip_vision_output: Output | None = None,
        face_video: Tensor | None = None,
        pose_video: Tensor | None = None,
        continue_motion: Tensor | None = None,
        background_video: Tensor | None = None,
        character_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings, an empty latent with room for the picture, and the three numbers. Videos that have ended do not count."""
        picture = torch.zeros((1, height, width, 3)) if reference_image is None else reference_image[:length]
        first = vae.encode(fitted(picture, width, height, "area"))
        kept, known = first.shape[2], 0
        shown = grey_video(length, width, height, continue_motion)
        if continue_motion is not None:
            before = continue_motion[-continue_motion_max_frames:]
            video_frame_offset = max(0, video_frame_offset - len(before))
            before = before[-length:]
            shown[: len(before)] = fitted(before, width, height, "area")
            known = cells(len(before))
        overlap = max(0, known * FRAMES_PER_CELL - 3)
        around = _left(background_video, video_frame_offset, length)
        if around is not None:
            shown[overlap : len(around)] = fitted(around, width, height, "area")[overlap:]
        free = _free_around(first, cells(length), known, overlap, _left(character_mask, video_frame_offset, length, still=True))
        sides = with_sight((positive, negative), clip_vision_output)
        poses = _left(pose_video, video_frame_offset, length)
        if poses is not None:
            sides = with_values(sides, {"pose_video_latent": vae.encode(_as_long(fitted(poses, width, height, "area"), length))})
        sides = _with_face(sides, _left(face_video, video_frame_offset, length))
        sides = with_values(sides, {"concat_latent_image": torch.cat((first, vae.encode(shown)), dim=2), "concat_mask": free})
        latent = _with_room(empty_video(batch_size, length, width, height), kept)
        return io.NodeOutput(*sides, latent, kept, overlap, video_frame_offset + length)


def _left(video: Tensor | None, offset: int, length: int, still: bool = False) -> Tensor | None:
    """At most *length* frames of *video* from *offset* on; None where there are none. Of a *still* one a single frame holds for all."""
    if video is None:
        return None
    if still and len(video) == 1:
        return video.expand(length, *video.shape[1:])
    return video[offset : offset + length] if len(video) > offset else None


def _free_around(first: Tensor, count: int, known: int, overlap: int, figure: Tensor | None) -> Tensor:
    """A mask for the four frames of each latent one, 1 where something is made, over the picture *first* and *count* latent frames: not
    in *known* latent frames at the beginning, and of frames from *overlap* on only in *figure* (frames x rows x columns), if that is given.
    """
    rows, columns = first.shape[-2:]
    frames = torch.ones((count * FRAMES_PER_CELL, rows, columns), device=first.device, dtype=first.dtype)
    frames[: known * FRAMES_PER_CELL] = 0.0
    if figure is not None:
        scaled = comfy.utils.common_upscale(figure.unsqueeze(1), columns, rows, "nearest-exact", "center")[:, 0]
        frames[overlap : len(scaled)] = scaled[overlap:]
    made = frames.unflatten(0, (count, FRAMES_PER_CELL)).transpose(0, 1)[None]
    return torch.cat((torch.zeros_like(made[:, :, :1]).expand(-1, -1, first.shape[2], -1, -1), made), dim=2)


def _with_face(sides: Sides, face: Tensor | None) -> Sides:
    """Both conditionings with the pictures of a face in -1…1 (1 x 3 x frames x rows x columns): of the negative one, black ones."""
    if face is None:
        return sides
    pictures = (fitted(face, FACE, FACE, "area") * 2.0 - 1.0).movedim(-1, 0)[None]
    positive, negative = (
        node_helpers.conditioning_set_values(side, {"face_video_pixels": seen})
        for side, seen in zip(sides, (pictures, torch.full_like(pictures, -1.0)))
    )
    return positive, negative


class WanAnimate2ToVideo(io.ComfyNode):
    """Prepares a picture and the video that it is to move like."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        ends = (("trim_latent", "Latent frames to cut off before decoding."), ("trim_image", "Frames that overlap with the video before."))
        outputs = [io.Int.Output(display_name=name, tooltip=tooltip) for name, tooltip in ends]
        return video_schema(
            "WanAnimate2ToVideo",
            CATEGORY,
            *image_inputs("reference_image", "pose_video"),
            seen_input(),
            io.Conditioning.Input("positive_pose", optional=True, tooltip="What the pose video shows; otherwise what the new video shows."),
            seen_input("clip_vision_output_pose"),
            *image_inputs("continue_motion"),
            io.Int.Input(
                "video_frame_offset", default=0, min=0, max=MAX_RESOLUTION, step=1, tooltip="Frames of the pose video that are passed over."
            ),
            share_input("pose_strength", 1.0, 10.0, "How much the pose video counts."),
            share_input("pose_start_percent", 0.0, 1.0, "From which share of the sampling on it counts; before, steps take less time."),
            share_input("pose_end_percent", 1.0, 1.0, "Up to which share of the sampling it counts."),
            share_input("reference_image_strength", 1.0, 10.0, "How much the picture counts."),
            description="Makes the figure in a picture move, gesture and look as the one in a video does.",
            outputs=(*outputs, io.Int.Output(display_name="video_frame_offset", tooltip="Frames of the pose video that are used up.")),
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
        video_frame_offset: int,
        reference_image: Tensor | None = None,
        pose_video: Tensor | None = None,
        clip_vision_output: Output | None = None,
        positive_pose: Conditioning | None = None,
        clip_vision_output_pose: Output | None = None,
        continue_motion: Tensor | None = None,
        pose_strength: float = 1.0,
        pose_start_percent: float = 0.0,
        pose_end_percent: float = 1.0,
        reference_image_strength: float = 1.0,
    ) -> io.NodeOutput:
        """The conditionings, an empty latent, and the three numbers. Raises ``ValueError`` for a pose video that has ended."""
        if pose_start_percent > pose_end_percent:
            raise ValueError(f"pose_start_percent ({pose_start_percent}) is after pose_end_percent ({pose_end_percent}); choose it smaller")
        picture = torch.zeros((1, height, width, 3)) if reference_image is None else reference_image[:1]
        first = vae.encode(fitted(picture, width, height, "area"))
        kept = first.shape[2]
        begun = grey_video(length, width, height, continue_motion)
        known = 0
        if continue_motion is not None:
            before = continue_motion[-GOES_ON:]
            video_frame_offset = max(0, video_frame_offset - len(before))
            begun[: len(before)] = fitted(before, width, height, "area")
            known = cells(len(before))
        shown = torch.cat((first, vae.encode(begun)), dim=2)
        free = torch.ones((1, 1, cells(length) + kept, height // 8, width // 8), device=shown.device, dtype=shown.dtype)
        free[:, :, : kept + known] = 0.0
        values: dict[str, Any] = {"concat_latent_image": shown, "concat_mask": free}
        if reference_image_strength != 1.0:
            values["reference_strength"] = reference_image_strength
        sides = with_sight(with_values((positive, negative), values), clip_vision_output)
        pose: dict[str, Any] = {}
        if pose_video is not None:
            pose["pose_video_latent"] = vae.encode(_from(pose_video, video_frame_offset, width, height, length))
        seen = clip_vision_output if clip_vision_output_pose is None else clip_vision_output_pose
        if seen is not None:
            pose["clip_vision_output_pose"] = seen
        said = sides[0] if positive_pose is None else positive_pose
        if said:
            pose["cross_attn_pose"] = said[0][0]
        if pose_strength != 1.0:
            pose["pose_strength"] = pose_strength
        shown_sides = [_during(side, pose, pose_start_percent, pose_end_percent) for side in sides]
        latent = _with_room(empty_video(batch_size, length, width, height), kept)
        return io.NodeOutput(*shown_sides, latent, kept, max(0, known * 4 - 3), video_frame_offset + length)


def _from(video: Tensor, offset: int, width: int, height: int, length: int) -> Tensor:
    """*length* frames of *video* from *offset* on; the last one stands still where there are no more. Raises ``ValueError`` for none."""
    if len(video) <= offset:
        raise ValueError(f"pose_video has {len(video)} frames, of which video_frame_offset passes over {offset}: none are left")
    return _as_long(fitted(video[offset : offset + length], width, height, "area"), length)


def _as_long(frames: Tensor, length: int) -> Tensor:
    """*frames* and the last of them as often as there are *length* then."""
    return torch.cat((frames, frames[-1:].expand(length - len(frames), -1, -1, -1)))


def _with_room(latent: Latent, kept: int) -> Latent:
    """An empty *latent* with *kept* more frames, for pictures before the video."""
    latent["samples"] = torch.cat((latent["samples"][:, :, :1].repeat(1, 1, kept, 1, 1), latent["samples"]), dim=2)
    return latent


def _during(side: Conditioning, values: dict[str, Any], start: float, end: float) -> Conditioning:
    """*side* with *values* from *start* to *end* of the sampling, and without them before and after."""
    if start <= 0.0 and end >= 1.0:
        return node_helpers.conditioning_set_values(side, values)
    parts = node_helpers.conditioning_set_values(side, {**values, "start_percent": start, "end_percent": end})
    for begin, stop in ((0.0, start), (end, 1.0)):
        if begin < stop:
            parts = parts + node_helpers.conditioning_set_values(side, {"start_percent": begin, "end_percent": stop})
    return parts


class WanAnimate2Cache(io.ComfyNode):
    """Lets the pose's video run through the network once instead of at every step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WanAnimate2Cache",
            category=f"model/conditioning/wan{CATEGORY}",
            description="Keeps what the network makes of the pose video over the steps, which nearly halves the time. It takes about "
            "12.5 GB for 81 frames of 480x832 in bf16, with context windows that for each of them; use the schedule standard_static with "
            "these, as windows that move are never met again.",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("device", options=["cpu", "gpu"], default="cpu", tooltip="Where it is kept."),
                io.Combo.Input(
                    "dtype",
                    options=["default", "int8", "int4"],
                    default="default",
                    tooltip="In how many bits: as the network computes, or in a half or a quarter of that.",
                ),
            ],
            outputs=[io.Model.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, device: str, dtype: str = "default") -> io.NodeOutput:
        """A clone of *model* with a cache, which is emptied after each sampling."""
        store = model_management.get_torch_device() if device == "gpu" else torch.device("cpu")
        cache = animate2.PoseBranchCache(store, dtype)
        clone = model.clone()
        options = dict(clone.model_options.get("transformer_options", {}))
        clone.model_options["transformer_options"] = {**options, "animate2_cache": cache}
        clone.add_callback(comfy.patcher_extension.CallbacksMP.ON_CLEANUP, lambda patcher: cache.free())
        return io.NodeOutput(clone)
