"""Opens video files for reading, without what would make FFmpeg read other files for them."""

import functools
from typing import Any, Final

from comfy_api.latest._pyav import av

# Playlists, descriptions of streams, and devices: a file of such a format names others, on this machine or elsewhere.
_POINTING_FORMATS: Final = frozenset(
    "concat dash hls hds imf image2 ismv lavfi rtp rtp_mpegts rtsp sap sdp segment smoothstreaming tee tty vapoursynth webm_dash_manifest "
    "alsa fbdev kmsgrab oss video4linux2 v4l2 xcbgrab avisynth jack pulse sndio dshow gdigrab avfoundation vobsub".split()
)


@functools.cache
def _readable_formats() -> str:
    formats = (entry for entry in av.formats_available if not _POINTING_FORMATS.intersection(entry.split(",")))
    return ",".join(sorted({name for entry in formats for name in entry.split(",")}))


def open_video(source: Any) -> Any:
    """The open PyAV container of a path or binary stream, for a ``with`` statement. Nothing is decoded.

    Raises ``FileNotFoundError`` and PyAV's errors, all with the path: also for playlists, whose entries could be any file.
    """
    return av.open(source, mode="r", options={"format_whitelist": _readable_formats(), "protocol_whitelist": "file"})
