"""Chooses how video files are opened for writing and with what they are encoded, and writes tags into them."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfy_api.latest._util.video_types import VideoCodec, VideoContainer
from utils.whole_files import partial_beside

_ENCODERS: Final = {VideoCodec.H264: "h264", VideoCodec.AV1: "libsvtav1"}
_MUXERS: Final = {VideoContainer.MP4: "mp4", VideoContainer.MKV: "matroska", VideoContainer.WEBM: "webm"}
_BY_EXTENSION: Final = {".mkv": VideoContainer.MKV, ".webm": VideoContainer.WEBM}
_WEBM_CODECS: Final = {"video": ("av1", "vp8", "vp9"), "audio": ("opus", "vorbis"), "subtitle": ("webvtt",)}
_OPUS_RATE_HZ = 48000


def container_to_output_format(container_format: str | None) -> str | None:
    """The format in which to write FFmpeg's *container_format*, which may name several; None lets FFmpeg decide."""
    return container_format.split(",")[0] if container_format else None


def _on_disk(dest: Any) -> bool:
    return isinstance(dest, str | os.PathLike)


def _extension(dest: Any) -> str:
    return os.path.splitext(os.fspath(dest))[1].lower() if _on_disk(dest) else ""


def _iso_options(dest: Any) -> dict[str, str]:
    # use_metadata_tags keeps the prompt and workflow tags, of which MP4 otherwise allows only a few names. Putting the header first
    # takes a second pass over the file by its name.
    return {"movflags": "use_metadata_tags+faststart" if _on_disk(dest) else "use_metadata_tags"}


def get_open_write_kwargs(dest: Any, container_format: str, to_format: str | None) -> dict[str, Any]:
    """Arguments of ``av.open`` for copying a file in *container_format* to the path or stream *dest*.

    *to_format* AUTO keeps the container. Only streams need a format; for paths the extension decides.
    """
    arguments: dict[str, Any] = {"mode": "w"}
    written: str | None = _extension(dest).lstrip(".")
    if not _on_disk(dest):
        wanted = container_format if to_format == VideoContainer.AUTO else to_format
        wanted = _MUXERS[wanted] if isinstance(wanted, VideoContainer) else wanted
        written = container_to_output_format(wanted.lower() if wanted else None)
        arguments["format"] = written
    return arguments | ({"options": _iso_options(dest)} if written in ("mov", "mp4") else {})


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a video is encoded as: *container* and *codec*, neither AUTO."""

    container: VideoContainer
    codec: VideoCodec

    @property
    def muxer(self) -> str:
        """FFmpeg's name of the container."""
        return _MUXERS[self.container]

    @property
    def encoder(self) -> str:
        """FFmpeg's name of the encoder of frames."""
        return _ENCODERS[self.codec]

    @property
    def sound_encoder(self) -> str:
        """FFmpeg's name of the encoder of sound."""
        return "libopus" if self.container is VideoContainer.WEBM else "aac"

    def sound_rate_hz(self, source_rate_hz: int) -> int:
        """The sample rate in which sound of *source_rate_hz* is stored."""
        return _OPUS_RATE_HZ if self.container is VideoContainer.WEBM else source_rate_hz

    def options(self, crf: float | None) -> dict[str, str]:
        """The encoder's options for a constant rate factor; None leaves its default."""
        if crf is None:
            return {}
        # 0 is only nearly lossless in SVT-AV1.
        return {"svtav1-params": "lossless=1"} if self.codec is VideoCodec.AV1 and crf == 0 else {"crf": str(crf)}

    def open_arguments(self, dest: Any) -> dict[str, Any]:
        """Arguments of ``av.open`` to write to *dest*."""
        return {"mode": "w", "format": self.muxer} | ({"options": _iso_options(dest)} if self.container is VideoContainer.MP4 else {})

    def check_size(self, width: int, height: int, subject: str) -> None:
        """Raise ``ValueError``, naming *subject*, for a width or height that is odd, which H.264 cannot hold."""
        if self.codec is VideoCodec.H264 and (width % 2 or height % 2):
            raise ValueError(
                f"H.264 needs an even width and height, but the {subject} {width}x{height}; crop or resize first, or choose the codec av1"
            )


def encoding_for(dest: Any, format: VideoContainer | str, codec: VideoCodec | str) -> Encoding:
    """How to encode to *dest* where the caller chose *format* and *codec*.

    AUTO follows the extension of *dest*, else means MP4; the codec then is AV1 in WebM and H.264 elsewhere. Raises ``ValueError`` for
    what is not offered.
    """
    try:
        container = VideoContainer(format)
    except ValueError:
        raise ValueError(f"videos are not saved in the format {format!r}; choose one of {VideoContainer.as_input()}") from None
    try:
        chosen = VideoCodec(codec)
    except ValueError:
        raise ValueError(f"videos are not encoded with the codec {codec!r}; choose one of {VideoCodec.as_input()}") from None
    if container is VideoContainer.AUTO:
        container = _BY_EXTENSION.get(_extension(dest), VideoContainer.MP4)
    if chosen is VideoCodec.AUTO:
        chosen = VideoCodec.AV1 if container is VideoContainer.WEBM else VideoCodec.H264
    if container is VideoContainer.WEBM and chosen is not VideoCodec.AV1:
        raise ValueError(f"a WebM file cannot hold {chosen.value.upper()}; choose the codec av1 or auto, or the format mp4 or mkv")
    return Encoding(container, chosen)


def container_names(container: VideoContainer | str) -> str:
    """The name of *container* in the lists that FFmpeg reports for files it reads."""
    return _MUXERS[VideoContainer(container)]


def fits_webm(streams: Any) -> bool:
    """Whether a WebM file can hold each of *streams* unchanged; streams without a known codec do not count."""
    known = [stream for stream in streams if stream.type in _WEBM_CODECS and stream.codec_context is not None]
    return all(stream.codec.canonical_name in _WEBM_CODECS[stream.type] for stream in known)


@contextlib.contextmanager
def written_whole(dest: Any) -> Iterator[Any]:
    """What to open instead of *dest*: for a path a partial file beside it, which takes its place at the end of the block.

    On any error the partial file is removed. Streams are given as they are.
    """
    if not _on_disk(dest):
        yield dest
        return
    with partial_beside(os.fspath(dest), suffix=_extension(dest)) as partial:
        yield partial


def write_tags(output: Any, tags: Mapping[str, Any] | None, inherited: Mapping[str, str] | None = None) -> None:
    """Set the *inherited* tags and then *tags* on an open container: strings unchanged, everything else as JSON."""
    for key, value in {**(inherited or {}), **(tags or {})}.items():
        output.metadata[key] = value if isinstance(value, str) else json.dumps(value)
