"""Chooses how video files are opened for writing, and writes tags into them."""

import json
import os
from collections.abc import Mapping
from typing import Any

from comfy_api.latest._util.video_types import VideoCodec, VideoContainer


def container_to_output_format(container_format: str | None) -> str | None:
    """The format in which to write FFmpeg's *container_format*, which may name several; None lets FFmpeg decide."""
    return container_format.split(",")[0] if container_format else None


def _options(movflags: str) -> dict[str, Any]:
    # use_metadata_tags keeps the prompt and workflow tags in MP4 files, which otherwise allow only a few names.
    return {"mode": "w", "options": {"movflags": f"use_metadata_tags{movflags}"}}


def get_open_write_kwargs(dest: Any, container_format: str, to_format: str | None) -> dict[str, Any]:
    """Arguments of ``av.open`` for copying a file in *container_format* to the path or stream *dest*.

    *to_format* AUTO keeps the container. Only streams need a format; for paths the extension decides.
    """
    if isinstance(dest, str | os.PathLike):
        return _options("+faststart" if os.fspath(dest).lower().endswith(".mp4") else "")
    wanted = container_format if to_format == VideoContainer.AUTO else to_format
    if isinstance(wanted, VideoContainer):
        wanted = wanted.value
    return _options("") | {"format": container_to_output_format(wanted.lower() if wanted else None)}


def mp4_write_kwargs(dest: Any, format: VideoContainer | str, codec: VideoCodec | str) -> dict[str, Any]:
    """Arguments of ``av.open`` to encode to *dest*. Raises ``ValueError`` for anything but H.264 in MP4."""
    if VideoContainer(format) not in (VideoContainer.AUTO, VideoContainer.MP4):
        raise ValueError(f"videos are encoded as MP4; the format {format!r} is not offered")
    if VideoCodec(codec) not in (VideoCodec.AUTO, VideoCodec.H264):
        raise ValueError(f"videos are encoded with H.264; the codec {codec!r} is not offered")
    on_disk = isinstance(dest, str | os.PathLike)
    arguments = _options("+faststart" if on_disk else "")
    if not on_disk or VideoContainer(format) is VideoContainer.MP4:
        arguments["format"] = "mp4"
    return arguments


def write_tags(output: Any, tags: Mapping[str, Any] | None, inherited: Mapping[str, str] | None = None) -> None:
    """Set the *inherited* tags and then *tags* on an open container: strings unchanged, everything else as JSON."""
    for key, value in {**(inherited or {}), **(tags or {})}.items():
        output.metadata[key] = value if isinstance(value, str) else json.dumps(value)
