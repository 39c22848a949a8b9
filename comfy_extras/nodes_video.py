"""Nodes that load, make, cut, take apart and save videos."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io, ui
from comfy_extras import image_writing, webm_writing
from comfy_extras.node_extension import extension_of
from utils.folder_walk import regular_files_in
from utils.regular_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

implementations = lazy_module("comfy_api.latest._input_impl.video_types")
opening = lazy_module("comfy_api.latest._util.video_opening")
types = lazy_module("comfy_api.latest._util.video_types")

_PREFIX_HELP = (
    "How the file's name begins, folders included; %date:yyyy-MM-dd% and other nodes' values (%Empty Latent Image.width%) are filled in."
)
_SPACE_HELP = (
    "What the pixels are; they are not converted. Auto: sRGB for videos made of images, and what loaded videos say they are. "
    "HDR (hybrid log-gamma) and HDR PQ are written with 10 bits in BT.2020."
)
_BITS: list[Any] = ["auto", 8, 10]
_SPACES = ("sRGB", "HDR", "HDR PQ")
_PIXELS_HELP = "What the pixels of the images are; they are not converted. HDR is BT.2020 with hybrid log-gamma, HDR PQ BT.2020 with PQ."
# Bits per colour go into numbers and into the choice that Create Video has for them.
_PARTS: dict[str, Any] = {
    "images": io.Image,
    "audio": io.Audio,
    "fps": io.Float,
    "bit_depth": io.Custom("INT,COMBO"),
    "color_space": io.Combo,
}
# Of each codec: the encoder's usual constant rate factor and the largest.
_RATE_FACTORS = {"h264": (23.0, 51.0), "av1": (30.0, 63.0)}


class LoadVideo(io.ComfyNode):
    """Opens a video of the input folder; nothing is decoded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = [entry.name for entry in regular_files_in(folder_paths.get_input_directory())]
        videos = sorted(folder_paths.filter_files_content_types(names, ["video"]))
        return io.Schema(
            node_id="LoadVideo",
            display_name="Load Video",
            category="video",
            essentials_category="Basics",
            search_aliases=["import video", "open video", "video file"],
            inputs=[io.Combo.Input("file", options=videos, upload=io.UploadType.video)],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        """The video. Raises ``FileNotFoundError``, and ``ValueError``, naming the file, for what is not a readable video."""
        path = folder_paths.get_annotated_filepath(file)
        with open_regular(path):
            pass
        try:
            with opening.open_video(path) as container:
                found = bool(container.streams.video)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} could not be read as a video ({error}). Check the file or upload it again.") from error
        if not found:
            raise ValueError(f"{path} holds no video, only other streams. Choose another file, or load it as audio.")
        return io.NodeOutput(implementations.VideoFromFile(path))

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        """The file's identity: place, size and time of change. Its content, which may be large, is not read."""
        stat = os.stat(folder_paths.get_annotated_filepath(file))
        return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        """Whether the file exists inside its folder; otherwise the error text."""
        return True if folder_paths.exists_annotated_filepath(file) else f"Invalid video file: {file}"


class CreateVideo(io.ComfyNode):
    """Puts images and sound together; they are encoded when the video is saved."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CreateVideo",
            display_name="Create Video",
            category="video",
            essentials_category="Video Tools",
            description="Makes a video of images, with sound if there is some.",
            search_aliases=["images to video"],
            inputs=[
                io.Image.Input("images", tooltip="The frames."),
                io.Float.Input("fps", default=30.0, min=1.0, max=120.0, step=1.0),
                io.Audio.Input("audio", optional=True, tooltip="The sound; what is longer than the frames is cut off."),
                io.Combo.Input(
                    "bit_depth",
                    options=_BITS,
                    default="auto",
                    optional=True,
                    tooltip="Bits per colour when it is saved. Auto: 8 for sRGB, 10 for the others. 10 show gradients without bands, "
                    "but not every player knows them.",
                ),
                io.Combo.Input("color_space", options=list(_SPACES), default="sRGB", optional=True, tooltip=_PIXELS_HELP),
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(
        cls, images: Tensor, fps: float, audio: Mapping[str, Any] | None = None, bit_depth: int | str = "auto", color_space: str = "sRGB"
    ) -> io.NodeOutput:
        """A video of *images* (F×H×W×C, 0…1), which are not copied. *bit_depth* is "auto", 8 or 10."""
        bits = (8 if color_space == "sRGB" else 10) if bit_depth == "auto" else int(bit_depth)
        parts = types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(fps))
        return io.NodeOutput(implementations.VideoFromComponents(parts, bit_depth=bits, color_space=color_space))


class GetVideoComponents(io.ComfyNode):
    """Takes a video apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GetVideoComponents",
            display_name="Get Video Components",
            category="video",
            description="Decodes a video: its frames, its sound, and what its header tells.",
            search_aliases=["extract frames", "split video", "video to images", "demux"],
            inputs=[io.Video.Input("video", tooltip="The video.")],
            outputs=[kind.Output(display_name=name) for name, kind in _PARTS.items()],
        )

    @classmethod
    def execute(cls, video: Any) -> io.NodeOutput:
        """Images (F×H×W×3, 0…1), the sound or None, frames per second, bits per colour, colour space."""
        parts = video.get_components()
        return io.NodeOutput(parts.images, parts.audio, float(parts.frame_rate), video.get_bit_depth(), video.get_color_space())


class VideoSlice(io.ComfyNode):
    """Cuts a part out of a video; files are not decoded for it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Video Slice",
            display_name="Trim Video",
            category="video",
            essentials_category="Video Tools",
            search_aliases=["trim video duration", "skip first frames", "frame load cap", "start time"],
            inputs=[
                io.Video.Input("video"),
                io.Float.Input("start_time", default=0.0, min=-1e5, max=1e5, step=0.001, tooltip="In seconds; below 0 from the end."),
                io.Float.Input("duration", default=0.0, min=0.0, step=0.001, tooltip="In seconds; 0 takes all from the start on."),
                io.Boolean.Input("strict_duration", default=False, tooltip="Whether a video that ends before is an error."),
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, video: Any, start_time: float, duration: float, strict_duration: bool) -> io.NodeOutput:
        """The part. Raises ``ValueError`` when the video is too short for it."""
        part = video.as_trimmed(start_time, duration, strict_duration=strict_duration)
        if part is None:
            raise ValueError(
                f"The video is {video.get_duration():.3f} s long, too short for {duration:.3f} s from {start_time:.3f} s on. "
                "Choose a smaller start_time or duration."
            )
        return io.NodeOutput(part)


class SaveVideo(io.ComfyNode):
    """Saves a video in the output folder, with the prompt and workflow as tags."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        offered = {"auto": ("auto", "h264", "av1"), "mp4": ("auto", "h264", "av1"), "mkv": ("auto", "h264", "av1"), "webm": ("auto", "av1")}
        return io.Schema(
            node_id="SaveVideo",
            display_name="Save Video",
            category="video",
            essentials_category="Basics",
            description="Saves a video in the output folder.",
            search_aliases=["export video"],
            inputs=[
                io.Video.Input("video", tooltip="What to save."),
                io.String.Input("filename_prefix", default="video/ComfyUI", tooltip=_PREFIX_HELP),
                io.DynamicCombo.Input(
                    "format",
                    options=[io.DynamicCombo.Option(container, [_codec_input(codecs)]) for container, codecs in offered.items()],
                    tooltip="The kind of file. Auto keeps the streams of a loaded video where it can.",
                ),
                _codec_input(offered["auto"], optional=True, extra_dict={"hidden": True}),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
            outputs=[io.Video.Output("video", tooltip="The same video.")],
        )

    @classmethod
    def execute(
        cls, video: Any, filename_prefix: str, format: Mapping[str, Any] | str, codec: Mapping[str, Any] | str | None = None
    ) -> io.NodeOutput:
        """*video* as it came. Prompts from before formats had settings give plain names for *format* and *codec*."""
        settings: Mapping[str, Any] = {"format": format} if isinstance(format, str) else format
        chosen = settings.get("codec") or codec or "auto"
        chosen = {"codec": chosen} if isinstance(chosen, str) else chosen
        encoding = chosen.get("encoding") or {}
        space = encoding.get("color_space")
        container = types.VideoContainer(settings["format"])
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), *video.get_dimensions()
        )
        file_name = f"{name}_{counter:05}_.{types.VideoContainer.get_extension(container)}"
        video.save_to(
            os.path.join(folder, file_name),
            format=container,
            codec=types.VideoCodec(chosen["codec"]),
            metadata=image_writing.metadata_texts(cls.hidden.prompt, cls.hidden.extra_pnginfo) or None,
            crf=encoding.get("crf"),
            color_space=None if space == "auto" else space,
        )
        return io.NodeOutput(video, ui=ui.PreviewVideo([ui.SavedResult(file_name, subfolder, io.FolderType.output)]))


def _codec_input(codecs: tuple[str, ...], **settings: Any) -> io.DynamicCombo.Input:
    options = [io.DynamicCombo.Option(codec, [_encoding_input(codec)] if codec in _RATE_FACTORS else []) for codec in codecs]
    return io.DynamicCombo.Input(
        "codec", options=options, tooltip="How frames are compressed. Auto keeps the stream of a loaded video.", **settings
    )


def _encoding_input(codec: str) -> io.DynamicCombo.Input:
    usual, largest = _RATE_FACTORS[codec]
    encoded_again: list[io.Input] = [
        io.Float.Input("crf", default=usual, min=0.0, max=largest, step=1.0, tooltip="Lower: better and larger."),
        io.Combo.Input("color_space", options=["auto", *_SPACES], default="auto", display_name="color space", tooltip=_SPACE_HELP),
    ]
    return io.DynamicCombo.Input(
        "encoding",
        display_name="encoding mode",
        options=[io.DynamicCombo.Option("auto", []), io.DynamicCombo.Option("re-encode", encoded_again)],
        optional=True,
        tooltip="Auto keeps streams that already have this codec; re-encode applies the settings below.",
    )


class SaveWEBM(io.ComfyNode):
    """Saves images as a WebM file without sound, with VP9 (which keeps transparency) or AV1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveWEBM",
            display_name="Save WEBM",
            category="video",
            search_aliases=["export webm"],
            is_experimental=True,
            inputs=[
                io.Image.Input("images", tooltip="The frames. With vp9 a fourth channel is saved as transparency."),
                io.String.Input("filename_prefix", default="ComfyUI"),
                io.Combo.Input("codec", options=list(webm_writing.CODECS)),
                io.Float.Input("fps", default=24.0, min=0.01, max=1000.0, step=0.01),
                io.Float.Input("crf", default=32.0, min=0, max=63.0, step=1, tooltip="Lower: better and larger."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images: Tensor, codec: str, fps: float, filename_prefix: str, crf: float) -> io.NodeOutput:
        """*images* (F×H×W×C, 0…1) as they came."""
        height, width = images[0].shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        file_name = f"{name}_{counter:05}_.webm"
        texts = image_writing.metadata_texts(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        webm_writing.write_webm(os.path.join(folder, file_name), images, codec, fps, crf, texts)
        return io.NodeOutput(images, ui=ui.PreviewVideo([ui.SavedResult(file_name, subfolder, io.FolderType.output)]))


comfy_entrypoint = extension_of(SaveWEBM, SaveVideo, CreateVideo, GetVideoComponents, LoadVideo, VideoSlice)
