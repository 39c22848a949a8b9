"""Where the rows of text, pictures, videos and sounds stand in the one sequence that MiniMax H3's network reads, and their places.

A place is (time, line, column). Time goes on from kind to kind: one unit per token of text, per picture shown and per time of a sound; a
frame of a video takes 5/3. Lines and columns of a frame lie around 16, as far apart as those of a square of 32 x 32 with as many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

FRAME_PER_TOKEN = (1, 4, 4, 4, 4)  # frames of a video that its latent frames stand for, over and over
FRAME_RESCALE = 5.0 / 3.0
AREA_SIDE = 32.0
VIDEO_KINDS, AUDIO_KINDS = ("cond", "ref_img", "video"), ("cond_audio", "ref_audio", "audio")

Reference = Mapping[str, Any]


def frame_places(height: int, width: int) -> torch.Tensor:
    """Line and column of each patch of a latent frame of *height* x *width*: patches x 2, float64."""
    side = math.sqrt(height * width)
    lines, columns = (_axis(length, length / side) for length in (height, width))
    return torch.cartesian_prod(lines, columns)


def _axis(length: int, ratio: float) -> torch.Tensor:
    patches = length // 2
    return (torch.arange(patches, dtype=torch.float64) * (ratio / patches) + (1.0 - ratio) / 2.0) * AREA_SIDE


def frame_spans(frames: int) -> list[float]:
    """The time that each of *frames* latent frames takes."""
    return [FRAME_RESCALE * FRAME_PER_TOKEN[number % len(FRAME_PER_TOKEN)] for number in range(frames)]


def reference_span(reference: Reference) -> float:
    """The time that something shown beforehand takes."""
    kind = reference["kind"]
    if kind == "image":
        return 1.0
    sound = float(reference["ref_audio_t"])
    return sound if kind == "audio" else max(sound, sum(frame_spans(reference["latent_t"])))


def video_places(frames: int, patches: torch.Tensor, start: float) -> torch.Tensor:
    """Places of *frames* latent frames with the *patches* of :func:`frame_places`, from the time *start* on: rows x 3."""
    spans = torch.tensor([0.0, *frame_spans(frames)[:-1]], dtype=torch.float64)
    times = start + spans.cumsum(0)
    return torch.cat((times.repeat_interleave(len(patches))[:, None], patches.repeat(frames, 1)), dim=1)


def audio_places(times: int, edges: Sequence[float], start: float) -> torch.Tensor:
    """Places of both sides of a sound: the left at the first column of *edges*, the right at the last, both on line 0: rows x 3."""
    place = torch.zeros(2, times, 3, dtype=torch.float64)
    place[:, :, 0] = start + torch.arange(times, dtype=torch.float64)
    place[0, :, 2], place[1, :, 2] = edges
    return place.flatten(0, 1)


class PackedLayout:
    """The sequence for a text of *text_len* tokens, a video and a sound.

    After the text stand *keyframes* (dicts with ``resolved_frame_index``, and ``latent`` or ``audio_latent``) at their times in the video,
    then *refs* (dicts with ``kind``: "image", "audio", "video", "video_audio"), which go before it in time, the sound, the video.
    ``segments`` holds (first row, row after the last, kind), ``position_ids`` rows x 3 (float64).
    """

    def __init__(
        self,
        text_len: int,
        latent_t: int,
        latent_h: int,
        latent_w: int,
        audio_t: int,
        keyframes: Iterable[Mapping[str, Any]] | None = None,
        refs: Iterable[Reference] | None = None,
    ) -> None:
        self.signature = (text_len, latent_t, latent_h, latent_w, audio_t)
        self.segments: list[tuple[int, int, str]] = []
        self.seq_len = 0
        self._places: list[torch.Tensor] = []
        shown = list(refs or ())
        patches = frame_places(latent_h, latent_w)
        edges = (float(patches[0, 1]), float(patches[-1, 1]))
        text = torch.zeros(text_len, 3, dtype=torch.float64)
        text[:, 0] = torch.arange(text_len, dtype=torch.float64)
        self._add("text", text)
        begin = float(text_len) + sum(map(reference_span, shown))
        for keyframe in keyframes or ():
            start = begin + FRAME_RESCALE * keyframe["resolved_frame_index"]
            picture, sound = keyframe.get("latent"), keyframe.get("audio_latent")
            if picture is not None:
                self._add("cond", video_places(picture.shape[2], patches, start))
            if sound is not None:
                self._add("cond_audio", audio_places(sound.shape[-1], edges, start))
        start = float(text_len)
        for reference in shown:
            self._add_reference(reference, start, edges)
            start += reference_span(reference)
        self._add("audio", audio_places(audio_t, edges, begin))
        self._add("video", video_places(latent_t, patches, begin))
        self.position_ids = torch.cat(self._places)

    def _add_reference(self, reference: Reference, start: float, edges: Sequence[float]) -> None:
        """What is shown beforehand, with the sound before its video; a sound alone is as wide as the video that is made."""
        kind = reference["kind"]
        patches = None if kind == "audio" else frame_places(reference["latent_h"], reference["latent_w"])
        if patches is not None:
            edges = (float(patches[0, 1]), float(patches[-1, 1]))
        if kind != "image" and reference["ref_audio_t"] > 0:
            self._add("ref_audio", audio_places(reference["ref_audio_t"], edges, start))
        if patches is not None:
            self._add("ref_img", video_places(1 if kind == "image" else reference["latent_t"], patches, start))

    def _add(self, kind: str, places: torch.Tensor) -> None:
        self.segments.append((self.seq_len, self.seq_len + len(places), kind))
        self.seq_len += len(places)
        self._places.append(places)

    def span(self, kind: str) -> tuple[int, int]:
        """First row and the row after the last of the segment *kind* that there is once."""
        return next((start, stop) for start, stop, one in self.segments if one == kind)
