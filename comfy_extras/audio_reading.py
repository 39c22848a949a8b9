"""Decodes the sound of sound and video files. Needs PyAV."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module
from comfy.units import MIB
from comfy_api.latest._pyav import av
from comfy_extras import audio_values
from utils.regular_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
torch = lazy_module("torch")

# FFmpeg opens what a file names (the parts of a playlist, say) by a protocol; as none is allowed, the file's own bytes are all it reads.
ONLY_THIS_FILE = {"protocol_whitelist": "none"}
# Decoded frames stand in memory beside the whole that is made of them.
COPIES = 2


def read_audio(path: str) -> tuple[Tensor, int]:
    """The first sound track of the file at *path*, a float32 tensor [channel, sample] on the CPU, and its samples per second.

    Integer samples are scaled to -1…1. Blocks on disk, and heeds requests to stop. Raises ``FileNotFoundError``, and ``ValueError``,
    naming the file, when it holds no sound that can be decoded, refers to other files, or its sound does not fit into free RAM;
    ``ImportError`` naming the package when PyAV is not installed.
    """
    with _errors_name(path), open_regular(path) as file, av.open(file, options=ONLY_THIS_FILE) as container:
        frames = _Frames()
        stream = _first_track(container)
        for frame in container.decode(stream):
            interrupt_flag.raise_if_set()
            frames.add(frame)
        return frames.joined()


def _first_track(container: Any) -> Any:
    """The first stream of sound that FFmpeg has a decoder for; touching one without would crash it."""
    tracks = list(container.streams.audio)
    for stream in tracks:
        if stream.codec_context is not None:
            return stream
    raise ValueError("its sound is in a format that is not known here" if tracks else "it has no sound track")


class _Frames:
    """Collects decoded frames as float samples, as many as fit into the RAM that was free at the start."""

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.rate_hz = 0
        self.left_bytes = self.allowed_bytes = audio_values.allowed_bytes()
        self.resampler = av.AudioResampler(format="fltp")

    def add(self, frame: Any) -> None:
        """Keep one frame. Raises ``ValueError`` when memory is short, or its rate or channels are not those of the first."""
        # The header of some formats tells half of the rate that their decoder gives.
        self.rate_hz = self.rate_hz or int(frame.sample_rate)
        self._keep(self.resampler.resample(frame))

    def _keep(self, pieces: list[Any]) -> None:
        for piece in pieces:
            array_CT = piece.to_ndarray()
            self.left_bytes -= COPIES * array_CT.nbytes
            if self.left_bytes < 0:
                raise ValueError(f"its sound takes more than the {self.allowed_bytes // MIB:,} MiB of free memory that it may take; cut it")
            self.arrays.append(array_CT)

    def joined(self) -> tuple[Tensor, int]:
        """All samples, and their rate. Raises ``ValueError`` when there are none."""
        if self.arrays:
            self._keep(self.resampler.resample(None))
        if not self.arrays:
            raise ValueError("its sound track is empty")
        return torch.from_numpy(numpy.concatenate(self.arrays, axis=1)), self.rate_hz


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """What the block raises on a file that is damaged becomes one error that names *path*."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no sound file {path}. Choose another one, or upload it again.") from error
    except (av.error.FFmpegError, OSError, ValueError, EOFError, OverflowError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise ValueError(f"{path} could not be read as sound: {reason}. Check the file or upload it again.") from error
