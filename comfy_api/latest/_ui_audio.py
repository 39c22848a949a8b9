"""Saves sound as FLAC, MP3 or Opus together with the workflow. Needs PyAV."""

from typing import Any, Final

from comfy.lazy_import import lazy_module

from ._io_widgets import FolderType
from ._pyav import av
from ._ui_files import SavedAudios, SavedResult, SavePlan, metadata_of

np = lazy_module("numpy")

CODECS: Final = {"flac": "flac", "mp3": "libmp3lame", "opus": "libopus"}
BIT_RATES: Final = {"64k": 64_000, "96k": 96_000, "128k": 128_000, "192k": 192_000, "320k": 320_000}
OPUS_RATES_HZ: Final = (8_000, 12_000, 16_000, 24_000, 48_000)
LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1"}
MP3_BEST_VARIABLE = "V0"


def opus_rate_hz(sample_rate_hz: int) -> int:
    """The lowest sample rate of Opus that is at least *sample_rate_hz*, or its highest."""
    return next((rate for rate in OPUS_RATES_HZ if rate >= sample_rate_hz), OPUS_RATES_HZ[-1])


def encode_audio(path: str, waveform_CT: Any, sample_rate_hz: int, format: str, quality: str, metadata: dict[str, str]) -> None:
    """Write one sound, a float tensor [channel, sample], to *path*. Raises ``ValueError`` for an unsupported number of channels."""
    samples = np.ascontiguousarray(waveform_CT.float().numpy())
    layout = LAYOUTS.get(samples.shape[0])
    if layout is None:
        raise ValueError(f"sound with {samples.shape[0]} channels cannot be saved; mix it down to 1, 2 or 6 channels first")
    rate_hz = opus_rate_hz(sample_rate_hz) if format == "opus" else sample_rate_hz
    with av.open(path, mode="w", format=format) as output:
        output.metadata.update(metadata)
        stream = output.add_stream(CODECS[format], rate=rate_hz, layout=layout)
        if format == "mp3" and quality == MP3_BEST_VARIABLE:
            stream.codec_context.qscale = 1
        elif format != "flac" and quality in BIT_RATES:
            stream.bit_rate = BIT_RATES[quality]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = sample_rate_hz, 0
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate_hz)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))


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
        plan, metadata, results = SavePlan(filename_prefix, folder_type), metadata_of(cls), []
        for number, waveform_CT in enumerate(audio["waveform"].cpu()):
            result = plan.next(format, number)
            encode_audio(plan.path_of(result), waveform_CT, int(audio["sample_rate"]), format, quality, metadata)
            results.append(result)
        return results

    @staticmethod
    def get_save_audio_ui(audio: dict, filename_prefix: str, cls: Any, format: str = "flac", quality: str = "128k") -> SavedAudios:
        """Save in the output folder, ready to play."""
        return SavedAudios(AudioSaveHelper.save_audio(audio, filename_prefix, FolderType.output, cls, format, quality))
