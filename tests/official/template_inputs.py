"""Small pictures, videos and sounds under the names that official templates take from the input folder."""

import pathlib

import av
import numpy as np
from PIL import Image

RATE, FRAMES, SAMPLES_PER_SECOND = 24, 9, 16000
SECONDS = 1.5
SOUNDS = (".mp3", ".wav", ".flac", ".m4a")


def write_input(path: pathlib.Path, width: int, height: int) -> None:
    """A picture, video or sound at *path*, by its ending; videos have a sound track, and what moves in them is no noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.suffix.lower()
    if ending == ".mp4":
        _write_video(path, width, height)
    elif ending in SOUNDS:
        with av.open(str(path), "w", format=ending[1:]) as container:
            codec = "mp3" if ending == ".mp3" else "pcm_s16le"
            _encode_tone(container, container.add_stream(codec, rate=SAMPLES_PER_SECOND, layout="mono"), SECONDS)
    else:
        Image.fromarray(_frame(width, height, sum(path.name.encode()) % 16)).save(path)


def _frame(width: int, height: int, moved: int) -> np.ndarray:
    """A picture of two gradients and a bright square."""
    down, right = np.mgrid[0:height, 0:width]
    picture = np.stack([right * 255 // width, down * 255 // height, (right + down + 8 * moved) % 256], axis=-1).astype(np.uint8)
    picture[4:16, 4 + moved : 16 + moved] = 240
    return picture


def _write_video(path: pathlib.Path, width: int, height: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLES_PER_SECOND, layout="mono")
        for number in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_frame(width, height, number), format="rgb24")))
        container.mux(stream.encode())
        _encode_tone(container, sound, FRAMES / RATE)


def _encode_tone(container: "av.container.OutputContainer", stream: "av.AudioStream", seconds: float) -> None:
    tone = np.sin(np.arange(round(seconds * SAMPLES_PER_SECOND)) * 0.1) * 0.3
    frame = av.AudioFrame.from_ndarray((tone * 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate = SAMPLES_PER_SECOND
    for piece in av.AudioResampler(stream.format, "mono", SAMPLES_PER_SECOND, stream.frame_size or None).resample(frame):
        container.mux(stream.encode(piece))
    container.mux(stream.encode())
