"""The node for camera angles: words at every border, and a camera that looks at the subject from there."""

import math

import pytest

from comfy_extras.nodes_camera_angle import CameraAngle


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((333, 17, 5), "front-left quarter view elevated shot medium shot"),
        ((0, 0, 0), "front view eye-level shot wide shot"),
        ((22, -15, 2), "front view eye-level shot medium shot"),
        ((23, -16, 1.9), "front-right quarter view low-angle shot wide shot"),
        ((90, 14, 5.9), "right side view eye-level shot medium shot"),
        ((135, 15, 6), "back-right quarter view elevated shot close-up"),
        ((180, 45, 10), "back view high-angle shot close-up"),
        ((225, 44, 3), "back-left quarter view elevated shot medium shot"),
        ((270, 60, 3), "left side view high-angle shot medium shot"),
        ((338, 0, 3), "front view eye-level shot medium shot"),
        ((360, 0, 3), "front view eye-level shot medium shot"),
        ((700, 90, 30), "front view high-angle shot close-up"),
    ],
)
def test_places_of_the_camera_have_the_words_of_multi_angle_loras(place, words):
    assert CameraAngle.execute(*place).args[1] == words


@pytest.mark.parametrize(
    ("place", "position", "zoom"),
    [((0, 0, 0), (0, 0, 6), 1.0), ((90, 0, 10), (6, 0, 0), 1.875), ((180, 30, 4), (0, 3, -6 * math.cos(math.pi / 6)), 1.35)],
)
def test_the_camera_orbits_the_origin(place, position, zoom):
    camera = CameraAngle.execute(*place).args[0]
    assert [camera["position"][axis] for axis in "xyz"] == pytest.approx(position, abs=1e-9)
    assert camera["target"] == {"x": 0.0, "y": 0.0, "z": 0.0} and camera["zoom"] == pytest.approx(zoom)
    assert (camera["cameraType"], camera["fov"]) == ("perspective", 35.0)
