"""The nodes of SAM 3: finding, outlining and following things."""

from __future__ import annotations

import json
import uuid
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io, ui
from comfy_extras.box_values import Box, frames_of
from comfy_extras.coloured_tracks import Track, TrackType, masks_of, numbers_in
from comfy_extras.node_extension import extension_of
from comfy_extras.segmenting import Segmenter, texts_of
from comfy_extras.track_preview import drawn_frames

if TYPE_CHECKING:
    from torch import Tensor

av = lazy_module("av")
management = lazy_module("comfy.model_management")
torch = lazy_module("torch")
POINTS = 'points as JSON [{"x": int, "y": int}, ...], in pixels'


def _points(given: str | None) -> list[tuple[float, float]]:
    """Raises ``ValueError`` for what is no list of points."""
    try:
        return [(float(point["x"]), float(point["y"])) for point in json.loads(given)] if given else []
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"coordinates must be {POINTS}; got {given!r:.120}") from error


def _boxes_per_frame(given: Any, frames: int) -> list[list[Box]]:
    """The boxes of each of *frames*: one list counts for all of them, and the last of several lists for the frames behind it."""
    if given is None:
        return [[]] * frames
    found = frames_of(given)
    return (found + [found[-1]] * (frames - len(found)))[:frames]


def _labelled(kind: Any, name: str, **options: Any) -> io.Input:
    """An input whose name is also what the page shows."""
    return kind.Input(name, display_name=name, **options)


def _schema(node_id: str, title: str, **parts: Any) -> io.Schema:
    return io.Schema(node_id=node_id, display_name=title, category="image/detection", **parts)


class SAM3_Detect(io.ComfyNode):  # noqa: N801 - ComfyUI's name
    """Finds what a text names, or outlines what boxes and points mean, in each image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        coordinates = {"force_input": True, "optional": True}
        return _schema(
            "SAM3_Detect",
            "SAM3 Detect",
            search_aliases="sam3;segment anything;open vocabulary;text detection;segment".split(";"),
            inputs=[
                _labelled(io.Model, "model"),
                _labelled(io.Image, "image"),
                _labelled(io.Conditioning, "conditioning", optional=True, tooltip="What is looked for."),
                _labelled(io.BoundingBox, "bboxes", tooltip="Boxes around what is meant.", **coordinates),
                _labelled(io.String, "positive_coords", tooltip=f"On it: {POINTS}.", **coordinates),
                _labelled(io.String, "negative_coords", tooltip=f"Beside it: {POINTS}.", **coordinates),
                _labelled(io.Float, "threshold", default=0.5, min=0.0, max=1.0, step=0.01),
                _labelled(
                    io.Int,
                    "refine_iterations",
                    default=2,
                    min=0,
                    max=5,
                    tooltip="How often masks are drawn again from themselves; 0: as they were found.",
                ),
                _labelled(io.Boolean, "individual_masks", default=False, tooltip="A mask for each thing instead of one for all."),
            ],
            outputs=[io.Mask.Output("masks"), io.BoundingBox.Output("bboxes")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        image: Tensor,
        conditioning: Any = None,
        bboxes: Any = None,
        positive_coords: str | None = None,
        negative_coords: str | None = None,
        threshold: float = 0.5,
        refine_iterations: int = 2,
        individual_masks: bool = False,
    ) -> io.NodeOutput:
        """Masks (one per image, or per thing) and the boxes of what was found, per image."""
        points = (_points(positive_coords), _points(negative_coords))
        boxes = _boxes_per_frame(bboxes, len(image))
        segmenter = Segmenter(model, threshold, refine_iterations)
        texts = texts_of(conditioning, segmenter)
        progress = comfy.utils.ProgressBar(len(image))
        device = management.intermediate_device()
        masks, found = [], []
        for picture, around in zip(image, boxes):
            management.throw_exception_if_processing_interrupted()
            own, frame = segmenter.segment(picture, texts, around, points)
            whole = torch.stack(own).to(device) if own else torch.zeros(0, *picture.shape[:2], device=device)
            masks.append(whole if individual_masks else whole.any(dim=0, keepdim=True).float())
            found.append(frame)
            progress.update(1)
        return io.NodeOutput(torch.cat(masks), found)


class SAM3_VideoTrack(io.ComfyNode):  # noqa: N801 - ComfyUI's name
    """Follows things through the frames of a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        shown = "What to follow: a mask of the first frame for each thing."
        most = "How many things are followed, those of initial_mask included; 0: 64."
        return _schema(
            "SAM3_VideoTrack",
            "Run SAM3 Video Track",
            search_aliases="sam3;video;track;propagate".split(";"),
            inputs=[
                _labelled(io.Image, "images", tooltip="The frames."),
                _labelled(io.Model, "model"),
                _labelled(io.Mask, "initial_mask", optional=True, tooltip=shown),
                _labelled(io.Conditioning, "conditioning", optional=True, tooltip="What is looked for in the frames."),
                _labelled(
                    io.Float,
                    "detection_threshold",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How sure what is found by text must be.",
                ),
                _labelled(io.Int, "max_objects", default=4, min=0, max=64, tooltip=most),
                _labelled(io.Int, "detect_interval", default=1, min=1, tooltip="Frames from one search to the next."),
            ],
            outputs=[TrackType.Output("track_data", display_name="track_data")],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        model: Any,
        initial_mask: Tensor | None = None,
        conditioning: Any = None,
        detection_threshold: float = 0.5,
        max_objects: int = 0,
        detect_interval: int = 1,
    ) -> io.NodeOutput:
        """The track. Raises ``ValueError`` where nothing says what to follow."""
        if initial_mask is None and not conditioning:
            raise ValueError("there is nothing to follow: connect initial_mask, or conditioning that names it")
        segmenter = Segmenter(model)
        result: Track = segmenter.network.forward_video(
            images[..., :3].movedim(-1, 1),
            None if initial_mask is None else initial_mask.reshape(-1, 1, *initial_mask.shape[-2:]),
            pbar=comfy.utils.ProgressBar(len(images)),
            text_prompts=[(text.states, text.mask) for text in texts_of(conditioning, segmenter)],
            new_det_thresh=detection_threshold,
            max_objects=max_objects,
            detect_interval=detect_interval,
            target_device=segmenter.device,
            target_dtype=segmenter.dtype,
        )
        return io.NodeOutput({**result, "orig_size": tuple(images.shape[1:3])})


class SAM3_TrackPreview(io.ComfyNode):  # noqa: N801 - ComfyUI's name
    """Shows followed things in colours, with their numbers, as a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "SAM3_TrackPreview",
            "SAM3 Track Preview",
            inputs=[
                _labelled(TrackType, "track_data"),
                _labelled(io.Image, "images", optional=True),
                _labelled(io.Float, "opacity", default=0.5, min=0.0, max=1.0, step=0.05),
                _labelled(io.Float, "fps", default=24.0, min=1.0, max=120.0, step=1.0),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, track_data: Track, images: Tensor | None = None, opacity: float = 0.5, fps: float = 24.0) -> io.NodeOutput:
        """The video, in the temporary folder."""
        name = f"sam3_track_preview_{uuid.uuid4().hex[:8]}.mp4"
        height, width = track_data["orig_size"] if images is None else images.shape[1:3]
        with av.open(f"{folder_paths.get_temp_directory()}/{name}", mode="w") as video:
            stream = video.add_stream("h264", rate=Fraction(round(fps * 1000), 1000))
            stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
            for levels in drawn_frames(track_data, images, opacity):
                video.mux(stream.encode(av.VideoFrame.from_ndarray(levels[: stream.height, : stream.width].copy(), format="rgb24")))
            video.mux(stream.encode(None))
        return io.NodeOutput(ui=ui.PreviewVideo([ui.SavedResult(name, "", io.FolderType.temp)]))


class SAM3_TrackToMask(io.ComfyNode):  # noqa: N801 - ComfyUI's name
    """Followed things as a mask for each frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            "SAM3_TrackToMask",
            "SAM3 Track to Mask",
            inputs=[
                _labelled(TrackType, "track_data"),
                _labelled(io.String, "object_indices", default="", tooltip="The numbers of things (0, 2, 3); empty: all."),
            ],
            outputs=[io.Mask.Output("masks", display_name="masks")],
        )

    @classmethod
    def execute(cls, track_data: Track, object_indices: str = "") -> io.NodeOutput:
        """Frames x height x width: where any of the chosen things is."""
        masks = masks_of(track_data)
        chosen = [] if masks is None else numbers_in(object_indices, masks.shape[1])
        if masks is None or not chosen:
            return io.NodeOutput(torch.zeros(track_data["n_frames"], *track_data["orig_size"], device=management.intermediate_device()))
        union = masks[:, chosen].any(dim=1, keepdim=True).float()
        return io.NodeOutput(
            torch.nn.functional.interpolate(union, size=track_data["orig_size"], mode="bilinear", align_corners=False)[:, 0]
        )


comfy_entrypoint = extension_of(SAM3_Detect, SAM3_VideoTrack, SAM3_TrackPreview, SAM3_TrackToMask)
