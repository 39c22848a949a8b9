"""Saves sound as FLAC, MP3 or Opus together with the workflow. Needs PyAV."""

import logging
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module

from ._io_widgets import FolderType
from ._pyav import av
from ._ui_files import SavedAudios, SavedResult, SavePlan, metadata_of

np = lazy_module("numpy")
log = logging.getLogger(__name__)

CODECS: Final = {"flac": "flac", "mp3": "libmp3lame", "opus": "libopus"}
BIT_RATES: Final = {"64k": 64_000, "96k": 96_000, "128k": 128_000, "192k": 192_000, "320k": 320_000}
# The sample rates that an encoder takes, where they are few.
RATES_HZ: Final = {
    "mp3": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "opus": (8_000, 12_000, 16_000, 24_000, 48_000),
}
MP3_CHANNELS: Final = 2
OPUS_BITS_PER_CHANNEL: Final = 256_000
LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1"}
MP3_BEST_VARIABLE = "V0"


def encoder_rate_hz(format: str, sample_rate_hz: int) -> int:
    """The lowest sample rate that *format* takes and that is at least *sample_rate_hz*; where none is, its highest."""
    rates = RATES_HZ.get(format, (sample_rate_hz,))
    return next((rate for rate in rates if rate >= sample_rate_hz), rates[-1])


def bit_rate(format: str, quality: str, channels: int) -> int:
    """Bits per second of *quality*; Opus takes no more than 256 kbit/s per channel, which is said where it matters."""
    asked = BIT_RATES[quality]
    if format == "opus" and asked > OPUS_BITS_PER_CHANNEL * channels:
        log.warning("Opus takes at most 256k per channel: sound with %s channel is saved with that instead of %s", channels, quality)
        return OPUS_BITS_PER_CHANNEL * channels
    return asked


def encode_audio(path: str, waveform_CT: Any, sample_rate_hz: int, format: str, quality: str, metadata: dict[str, str]) -> None:
    """Write one sound, a float tensor [channel, sample], to *path*, a second at a time. Leaves no file behind when it fails.

    Raises ``ValueError`` for an unsupported number of channels, and for no samples at all.
    """
    channels = waveform_CT.shape[0]
    layout = LAYOUTS.get(channels)
    if layout is None or (format == "mp3" and channels > MP3_CHANNELS):
        accepted = "1 or 2" if format == "mp3" else "1, 2 or 6"
        raise ValueError(f"sound with {channels} channels cannot be saved as {format}; mix it down to {accepted} channels first")
    if not waveform_CT.shape[1]:
        raise ValueError("sound without samples cannot be saved; check what the sound was cut from")
    try:
        with av.open(path, mode="w", format=format) as output:
            output.metadata.update(metadata)
            rate_hz = encoder_rate_hz(format, sample_rate_hz)
            stream = output.add_stream(CODECS[format], rate=rate_hz, layout=layout)
            if format == "mp3" and quality == MP3_BEST_VARIABLE:
                stream.codec_context.qscale = 1
            elif format != "flac" and quality in BIT_RATES:
                stream.bit_rate = bit_rate(format, quality, channels)
            for piece in _pieces(waveform_CT, sample_rate_hz, rate_hz, layout):
                output.mux(stream.encode(piece))
            output.mux(stream.encode(None))
    except BaseException:
        pathlib.Path(path).unlink(missing_ok=True)
        raise


def _pieces(waveform_CT: Any, sample_rate_hz: int, rate_hz: int, layout: str) -> Iterator[Any]:
    """Frames of at most a second, brought to *rate_hz*. Heeds requests to stop."""
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate_hz)
    for start in range(0, waveform_CT.shape[1], sample_rate_hz):
        interrupt_flag.raise_if_set()
        samples = np.ascontiguousarray(waveform_CT[:, start : start + sample_rate_hz].float().numpy())
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, start, Fraction(1, sample_rate_hz)
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


class AudioSaveHelper:
    """Saves sound below the input, output or temp folder."""

    @staticmethod
    def save_audio(
        audio: dict, filename_prefix: str, folder_type: FolderType, cls: Any, format: str = "flac", quality: str = "128k"
    ) -> list[SavedResult]:
        """Save each sound of the batch *audio* (``waveform`` [batch, channel, sample], ``sample_rate``).

        *format* is flac, mp3 or opus (``ValueError`` otherwise); *quality* is a bit rate such as ``128k``, or ``V0`` for mp3. Raises
        ``ImportError`` naming the package when PyAV is not installed.
        """
        if format not in CODECS:
            raise ValueError(f"sound can be saved as {', '.join(CODECS)}, not as {format!r}")
        plan, metadata, results = SavePlan(filename_prefix, folder_type, ending=""), metadata_of(cls), []
        for number, waveform_CT in enumerate(audio["waveform"].cpu()):
            result = plan.next(format, number)
            encode_audio(plan.path_of(result), waveform_CT, int(audio["sample_rate"]), format, quality, metadata)
            results.append(result)
        return results

    @staticmethod
    def get_save_audio_ui(audio: dict, filename_prefix: str, cls: Any, format: str = "flac", quality: str = "128k") -> SavedAudios:
        """Save in the output folder, ready to play."""
        return SavedAudios(AudioSaveHelper.save_audio(audio, filename_prefix, FolderType.output, cls, format, quality))
