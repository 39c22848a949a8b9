"""Nodes that take frames out of the videos of a dataset, and such that shuffle pairs (part of ``nodes_dataset``)."""

from __future__ import annotations

from typing import Any, ClassVar

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.dataset_bases import random_numbers, seed_input

implementations = lazy_module("comfy_api.latest._input_impl.video_types")
opening = lazy_module("comfy_api.latest._util.video_opening")
torch = lazy_module("torch")
types = lazy_module("comfy_api.latest._util.video_types")

_CROPPING = ("crop", "crop video", "temporal crop", "truncate video")
LONGEST = 99999


def chosen_frames(video: Any, indices: list[int]) -> Any:
    """A video of the frames *indices* (ascending), the only ones that are kept in memory. Raises ``ValueError`` where it ends before."""
    wanted, frames = set(indices), {}
    with opening.open_video(video.get_stream_source()) as container:
        for number, frame in enumerate(container.decode(container.streams.video[0])):
            if number in wanted:
                frames[number] = torch.from_numpy(frame.to_ndarray(format="rgb24")).float() / 255.0
            if number == indices[-1]:
                break
    if len(frames) < len(wanted):
        raise ValueError(f"the video ends before its frame {max(wanted)}; encode it again, its header tells more frames than it has")
    images = torch.stack([frames[number] for number in indices])
    return implementations.VideoFromComponents(types.VideoComponents(images=images, frame_rate=video.get_frame_rate()))


def _excerpt(video: Any, start: int, length: int) -> Any:
    """*length* frames of *video* from *start* on; nothing is decoded."""
    rate = float(video.get_frame_rate())
    return video.as_trimmed(start / rate, length / rate, strict_duration=False)


class _VideoNode(io.ComfyNode):
    """Takes one video and gives another."""

    NODE_ID: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    CATEGORY_NAME: ClassVar[str] = "video/transform"
    TELLS: ClassVar[str] = ""
    ALIASES: ClassVar[tuple[str, ...]] = _CROPPING

    @classmethod
    def settings(cls) -> list[io.Input]:
        """The inputs beside the video."""
        raise NotImplementedError

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.TITLE,
            category=cls.CATEGORY_NAME,
            description=cls.TELLS,
            search_aliases=list(cls.ALIASES),
            is_experimental=True,
            inputs=[io.Video.Input("video", tooltip="The video."), *cls.settings()],
            outputs=[io.Video.Output(display_name="video", tooltip="What was taken of it.")],
        )


class VideoFrameSample(_VideoNode):
    """Takes some frames out of a video."""

    NODE_ID = "VideoFrameSample"
    TITLE = "Sample Video Frame"
    CATEGORY_NAME = "video"
    TELLS = "Takes a number of frames out of a video: spread evenly, the first, the last, or by chance."
    ALIASES = ("sample frames", "extract frames")

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [
            io.Int.Input("num_frames", default=16, min=1, max=9999, tooltip="How many."),
            io.Combo.Input("strategy", options=["uniform", "head", "tail", "random"], default="uniform", tooltip="Which."),
            seed_input(),
        ]

    @classmethod
    def execute(cls, video: Any, num_frames: int, strategy: str, seed: int) -> io.NodeOutput:
        """At most *num_frames* frames, in order; "head" and "tail" decode nothing."""
        total = video.get_frame_count()
        count = min(num_frames, total)
        if strategy in ("head", "tail"):
            return io.NodeOutput(_excerpt(video, 0 if strategy == "head" else total - count, count))
        if strategy == "random":
            indices = sorted(random_numbers(seed).choice(total, size=count, replace=False).tolist())
        else:
            indices = [total // 2] if count == 1 else [round(step * (total - 1) / (count - 1)) for step in range(count)]
        return io.NodeOutput(chosen_frames(video, indices))


class VideoTemporalCrop(_VideoNode):
    """Cuts a piece out of a video."""

    NODE_ID = "VideoTemporalCrop"
    TITLE = "Crop Video (Temporal)"
    TELLS = "Cuts a row of frames out of a video."

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [
            io.Int.Input("start_frame", default=0, min=0, max=LONGEST, tooltip="The first frame, from 0."),
            io.Int.Input("length", default=16, min=1, max=LONGEST, tooltip="How many frames."),
        ]

    @classmethod
    def execute(cls, video: Any, start_frame: int, length: int) -> io.NodeOutput:
        """The piece, within the video; nothing is decoded."""
        total = video.get_frame_count()
        start = min(start_frame, max(total - 1, 0))
        return io.NodeOutput(_excerpt(video, start, min(length, total - start)))


class VideoRandomTemporalCrop(_VideoNode):
    """Cuts a piece out of a video, at a place by chance."""

    NODE_ID = "VideoRandomTemporalCrop"
    TITLE = "Crop Video (Temporal Random)"
    TELLS = "Cuts a row of frames out of a video, at a place that the seed decides."
    ALIASES = (*_CROPPING, "random crop")

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [io.Int.Input("length", default=16, min=1, max=LONGEST, tooltip="How many frames."), seed_input()]

    @classmethod
    def execute(cls, video: Any, length: int, seed: int) -> io.NodeOutput:
        """The piece; nothing is decoded."""
        total = video.get_frame_count()
        count = min(length, total)
        start = random_numbers(seed).randint(0, total - count + 1) if total > count else 0
        return io.NodeOutput(_excerpt(video, start, count))


class _Shuffle(io.ComfyNode):
    """Puts one list, or two alike, into another order."""

    NODE_ID: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""
    CATEGORY_NAME: ClassVar[str] = ""
    LISTS: ClassVar[tuple[str, ...]] = ()
    FORCE_TEXTS: ClassVar[bool | None] = None

    @classmethod
    def define_schema(cls) -> io.Schema:
        kinds: dict[str, Any] = {"images": io.Image, "videos": io.Video, "texts": io.String}
        forced = {"force_input": cls.FORCE_TEXTS}
        return io.Schema(
            node_id=cls.NODE_ID,
            display_name=cls.TITLE,
            category=cls.CATEGORY_NAME,
            description=f"Puts {' and '.join(cls.LISTS)} into an order that the seed decides.",
            search_aliases=["shuffle", "randomize", "mix"],
            is_experimental=True,
            is_input_list=True,
            inputs=[
                *(kinds[name].Input(name, tooltip="A list.", **(forced if name == "texts" else {})) for name in cls.LISTS),
                seed_input(),
            ],
            outputs=[kinds[name].Output(display_name=name, is_output_list=True, tooltip="In the new order.") for name in cls.LISTS],
        )

    @classmethod
    def execute(cls, seed: list[int], **lists: list[Any]) -> io.NodeOutput:
        """The lists, all in the same new order. Raises ``ValueError`` when they are not equally long."""
        lengths = {name: len(lists[name]) for name in cls.LISTS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the lists are not equally long: {lengths}")
        order = random_numbers(seed[0]).permutation(lengths[cls.LISTS[0]])
        return io.NodeOutput(*([lists[name][index] for index in order] for name in cls.LISTS))


class ShuffleImageTextDataset(_Shuffle):
    """Shuffles pictures and their captions."""

    NODE_ID = "ShuffleImageTextDataset"
    TITLE = "Shuffle Pairs of Image-Text"
    CATEGORY_NAME = "image/batch"
    LISTS = ("images", "texts")
    FORCE_TEXTS = True


class ShuffleVideoDataset(_Shuffle):
    """Shuffles videos."""

    NODE_ID = "ShuffleVideoDataset"
    TITLE = "Shuffle Videos List"
    CATEGORY_NAME = "video/batch"
    LISTS = ("videos",)


class ShuffleVideoTextDataset(_Shuffle):
    """Shuffles videos and their captions."""

    NODE_ID = "ShuffleVideoTextDataset"
    TITLE = "Shuffle Pairs of Video-Text"
    CATEGORY_NAME = "dataset/video"
    LISTS = ("videos", "texts")


VIDEO_NODES: tuple[type[io.ComfyNode], ...] = (
    VideoFrameSample,
    VideoTemporalCrop,
    VideoRandomTemporalCrop,
    ShuffleImageTextDataset,
    ShuffleVideoDataset,
    ShuffleVideoTextDataset,
)
