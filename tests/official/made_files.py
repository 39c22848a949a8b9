"""What came of a prompt's nodes that save: files that open and play, told by decoding them."""

import io
import urllib.parse
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from PIL import Image, ImageSequence
from small_prompts import number_of
from template_inputs import RATE

FASTER = "FrameInterpolate"  # makes so many times as many frames, which are played so many times as fast
FROM_VIDEO = ("GetVideoComponents", 2)  # the output that is a video's frames per second


@dataclass(frozen=True, slots=True)
class Video:
    """A decoded video. ``sound_seconds`` is None without a sound track."""

    frames: int
    rate: float
    seconds: float
    size: tuple[int, int]
    deviation: float
    sound_seconds: float | None


def files_of(run: Any, node: str) -> list[bytes]:
    """The files that *node* of *run* made."""
    output = run.history["outputs"].get(node, {})
    named = [
        item for value in output.values() if isinstance(value, list) for item in value if isinstance(item, dict) and "filename" in item
    ]
    return [run.server.get_bytes("/view?" + urllib.parse.urlencode(item)) for item in named]


def decoded_video(content: bytes) -> Video:
    """The video in *content*, all of it decoded."""
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        rate, told = float(stream.average_rate), float(stream.duration * stream.time_base)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    with av.open(io.BytesIO(content)) as container:
        sounds = container.streams.audio
        seconds = sum(frame.samples for frame in container.decode(sounds[0])) / sounds[0].rate if sounds else None
    height, width = frames[0].shape[:2]
    return Video(len(frames), rate, told, (width, height), float(max(frame.std() for frame in frames)), seconds)


def decoded_sound(content: bytes) -> tuple[int, float, float]:
    """(samples per second, seconds, deviation) of the sound in *content*."""
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        pieces = [piece.to_ndarray() for frame in container.decode(stream) for piece in resampler.resample(frame)]
    samples = np.concatenate(pieces, axis=1)
    return stream.rate, samples.shape[1] / stream.rate, float(samples.std())


def pictures(content: bytes) -> list[np.ndarray]:
    """The pictures of a still or animated file."""
    with Image.open(io.BytesIO(content)) as image:
        return [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]


def promised(prompt: dict[str, Any], node: str) -> tuple[float, bool]:
    """(frames per second, whether there is a sound track) that *prompt* asks for of the video that *node* saves."""
    made = prompt[prompt[node]["inputs"]["video"][0]]
    assert made["class_type"] == "CreateVideo", made
    asked = made["inputs"]["fps"]
    rate = number_of(prompt, asked)
    if rate is None:
        rate, source = RATE, prompt[asked[0]]["class_type"]
        if (source, asked[1]) != FROM_VIDEO:
            (faster,) = (other["inputs"]["multiplier"] for other in prompt.values() if other["class_type"] == FASTER)
            assert source == "ComfySwitchNode", asked
            rate *= number_of(prompt, faster)
    return rate, "audio" in made["inputs"]
