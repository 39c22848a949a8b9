"""Points of people in the form of OpenPose, and how they are drawn.

A frame is a dict: ``canvas_width``, ``canvas_height``, and ``people``, each of whom has lists of x, y (pixels) and score, one behind the
other: ``pose_keypoints_2d`` (18), ``foot_keypoints_2d`` (6), ``face_keypoints_2d`` (68 and both eyes), ``hand_right_keypoints_2d`` and
``hand_left_keypoints_2d`` (21 each).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io

numpy = lazy_module("numpy")
pil_draw = lazy_module("PIL.ImageDraw")
pil_image = lazy_module("PIL.Image")

Frame = dict[str, Any]
Points = Any  # N x 3 of x, y, score
PoseType = io.Custom("POSE_KEYPOINT")

# Of COCO's body (with the neck as the 18th), the points of OpenPose's body in its order.
BODY = (0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
SHOULDERS, SURE_SHOULDER = (5, 6), 0.3
PARTS = {  # of the 133 points
    "foot_keypoints_2d": slice(17, 23),
    "face_keypoints_2d": slice(23, 91),
    "hand_right_keypoints_2d": slice(91, 112),
    "hand_left_keypoints_2d": slice(112, 133),
}
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13))
HEAD = ((1, 0), (0, 14), (14, 16), (0, 15), (15, 17))
HEAD_POINTS, NECK, EYES = (0, 14, 15, 16, 17), 1, [14, 15]
FINGERS = tuple((0 if joint == 1 else 4 * finger + joint - 1, 4 * finger + joint) for finger in range(5) for joint in range(1, 5))
COLOURS = tuple(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(number / 18, 1.0, 1.0)) for number in range(18))
POINT_RADIUS, FINGER_WIDTH = 4, 3
DEGREES = 4  # from one corner of a limb's edge to the next
SHORTEST = 1.0  # limb that is drawn, in pixels
WHITE, BLUE = (255, 255, 255), (0, 0, 255)


@dataclass(frozen=True, slots=True)
class Style:
    """What of people is drawn, from which score on, and how wide."""

    body: bool = True
    hands: bool = True
    face: bool = True
    feet: bool = False
    head: bool = True
    stick_width: int = 4
    face_point_size: int = 3
    least_score: float = 0.3


def person_of(places: Any, scores: Any) -> dict[str, list[float]]:
    """Someone whose 133 points (COCO-WholeBody's) are at *places* (x, y) with *scores*."""
    points = numpy.concatenate([numpy.asarray(places, numpy.float32), numpy.asarray(scores, numpy.float32)[:, None]], axis=1)
    left, right = points[list(SHOULDERS)]
    neck = (left + right) / 2
    neck[2] = min(left[2], right[2]) if min(left[2], right[2]) > SURE_SHOULDER else 0.0
    body = numpy.concatenate([points[:17], neck[None]])[list(BODY)]
    person = {"pose_keypoints_2d": body}
    person |= {name: points[part] for name, part in PARTS.items()}
    person["face_keypoints_2d"] = numpy.concatenate([person["face_keypoints_2d"], body[EYES]])
    return {name: part.flatten().tolist() for name, part in person.items()}


def drawn(frame: Frame, style: Style) -> Any:
    """*frame* on black: height x width x 3, uint8."""
    picture = pil_image.new("RGB", (frame["canvas_width"], frame["canvas_height"]))
    pen = pil_draw.Draw(picture)
    for person in frame["people"]:
        _draw_body(pen, points_of(person, "pose_keypoints_2d", 18), style)
        if style.feet:
            _draw_points(pen, points_of(person, "foot_keypoints_2d", 6), COLOURS, POINT_RADIUS, style)
        if style.hands:
            for hand in ("hand_right_keypoints_2d", "hand_left_keypoints_2d"):
                _draw_hand(pen, points_of(person, hand, 21), style)
        if style.face:
            face = _inside(points_of(person, "face_keypoints_2d", 70)[:68])
            _draw_points(pen, face, (WHITE,), style.face_point_size, style)
    return numpy.asarray(picture)


def points_of(person: dict[str, Any], name: str, count: int) -> Points:
    """*count* points of a part of someone, with scores of 0 where there are none."""
    given = person.get(name) or [0.0] * (3 * count)
    return numpy.asarray(given, dtype=numpy.float32).reshape(count, 3)


def _draw_body(pen: Any, points: Points, style: Style) -> None:
    edges = [*(LIMBS if style.body else ()), *(HEAD if style.head else ())]
    first = 0 if style.body else len(LIMBS)
    for number, (start, end) in enumerate(edges, first):
        ends = points[[start, end]]
        if ends[:, 2].min() >= style.least_score and math.dist(ends[0, :2], ends[1, :2]) >= SHORTEST:
            pen.polygon(_limb(ends[0], ends[1], style.stick_width), fill=COLOURS[number % len(COLOURS)])
    head, body = set(HEAD_POINTS) if style.head else set(), set(range(18)) - set(HEAD_POINTS) if style.body else set()
    shown = sorted(head | body | ({NECK} if style.head else set()))
    _draw_points(pen, points[shown], [COLOURS[number] for number in shown], POINT_RADIUS, style)


def _limb(start: Points, end: Points, width: int) -> list[tuple[int, int]]:
    """The edge of an ellipse from *start* to *end*, *width* to each side."""
    across, along = float(end[0] - start[0]), float(end[1] - start[1])
    length, angle = math.hypot(across, along) / 2, math.atan2(along, across)
    middle = int((start[0] + end[0]) / 2), int((start[1] + end[1]) / 2)
    cosine, sine = math.cos(angle), math.sin(angle)
    edge = []
    for degree in range(0, 360, DEGREES):
        x, y = length * math.cos(math.radians(degree)), width * math.sin(math.radians(degree))
        edge.append((round(middle[0] + x * cosine - y * sine), round(middle[1] + x * sine + y * cosine)))
    return edge


def _draw_hand(pen: Any, points: Points, style: Style) -> None:
    there = _inside(points)
    for number, (start, end) in enumerate(FINGERS):
        if there[[start, end], 2].min() >= style.least_score:
            colour = tuple(int(255 * part) for part in colorsys.hsv_to_rgb(number / len(FINGERS), 1.0, 1.0))
            pen.line([tuple(map(int, there[start, :2])), tuple(map(int, there[end, :2]))], fill=colour, width=FINGER_WIDTH)
    _draw_points(pen, there, (BLUE,), POINT_RADIUS, style)


def _inside(points: Points) -> Points:
    """*points* with scores below every threshold for those at or before the picture's first pixels, which stand for none."""
    points = points.copy()
    points[(points[:, :2].astype(int) <= 0).any(axis=1), 2] = -1.0
    return points


def _draw_points(pen: Any, points: Points, colours: Sequence[tuple[int, ...]], radius: int, style: Style) -> None:
    width, height = pen.im.size
    for number, (x, y, score) in enumerate(points):
        column, row = int(x), int(y)
        if score >= style.least_score and 0 <= column < width and 0 <= row < height:
            pen.ellipse((column - radius, row - radius, column + radius, row + radius), fill=colours[number % len(colours)])
