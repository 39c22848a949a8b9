"""Points of people: OpenPose's form, drawings, boxes of faces."""

import numpy as np
import pytest

from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints, SDPoseFaceBBoxes
from comfy_extras.pose_values import Style, drawn, person_of, points_of

ALL = {"draw_body": True, "draw_hands": True, "draw_face": True, "draw_feet": True, "stick_width": 4, "face_point_size": 2}


def someone(score=1.0):
    places = np.stack([np.arange(133) % 12 * 10 + 5, np.arange(133) // 12 * 10 + 5], axis=1)
    return person_of(places, np.full(133, score))


def frame(*people):
    return {"canvas_width": 130, "canvas_height": 130, "people": list(people)}


def test_the_body_has_openposes_order_and_a_neck():
    places = np.stack([np.arange(133), np.zeros(133)], axis=1)
    scores = np.full(133, 0.9)
    body = points_of(person_of(places, scores), "pose_keypoints_2d", 18)
    assert body[:, 0].tolist() == [0, 5.5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3] and body[1, 2] == pytest.approx(0.9)
    person = person_of(places, scores)
    assert points_of(person, "foot_keypoints_2d", 6)[:, 0].tolist() == list(range(17, 23))
    assert points_of(person, "face_keypoints_2d", 70)[-2:, 0].tolist() == [2, 1]
    assert points_of(person, "hand_left_keypoints_2d", 21)[0, 0] == 112 and points_of(person, "hand_right_keypoints_2d", 21)[0, 0] == 91
    scores[5] = 0.2
    assert points_of(person_of(places, scores), "pose_keypoints_2d", 18)[1, 2] == 0


def test_parts_are_drawn_as_asked_and_unsure_points_are_not():
    (whole,) = SDPoseDrawKeypoints.execute([frame(someone())], **ALL, score_threshold=0.3).args
    assert whole.shape == (1, 130, 130, 3) and whole.max() == 1 and whole.min() == 0
    counts = {}
    for part in ("draw_body", "draw_hands", "draw_face", "draw_feet"):
        alone = {**ALL, **{name: name == part for name in ALL if name.startswith("draw")}}
        (picture,) = SDPoseDrawKeypoints.execute([frame(someone())], **alone, score_threshold=0.3, draw_head=False).args
        counts[part] = int(picture.any(dim=-1).sum())
    assert all(counts.values()) and len(set(counts.values())) == 4
    (faint,) = SDPoseDrawKeypoints.execute([frame(someone(0.2)), frame()], **ALL, score_threshold=0.3).args
    assert faint.shape[0] == 2 and not faint.any()
    assert SDPoseDrawKeypoints.execute([], **ALL, score_threshold=0.3).args[0].shape == (1, 64, 64, 3)


def test_limbs_and_points_have_openposes_colours():
    places = np.zeros((133, 2))
    places[5], places[6] = (90, 20), (10, 20)  # the shoulders; the neck is between them
    scores = np.zeros(133)
    scores[[5, 6]] = 1
    picture = drawn(frame(person_of(places, scores)), Style(head=False, hands=False, face=False))
    assert picture[20, 30].tolist() == [255, 0, 0] and picture[20, 70].tolist() == [255, 85, 0]
    assert picture[20, 10].tolist() == [255, 170, 0] and picture[20, 90].tolist() == [85, 255, 0] and picture[30, 30].tolist() == [0, 0, 0]
    assert picture[16:25, 30].any(axis=-1).sum() >= 7


def test_boxes_of_faces_are_larger_mostly_above_and_square():
    places = np.full((133, 2), 60.0)
    places[23], places[24] = (40, 50), (80, 70)
    person = person_of(places, np.ones(133))
    ((box,),) = SDPoseFaceBBoxes.execute([frame(person)], 4.0, False).args[0]
    assert box == {"x": 20, "y": 35, "width": 80, "height": 40}
    ((square,),) = SDPoseFaceBBoxes.execute([frame(person)], 4.0, True).args[0]
    assert (square["width"], square["height"], square["x"], square["y"]) == (80, 80, 20, 15)
    flat = person_of(np.full((133, 2), 60.0), np.ones(133))
    assert SDPoseFaceBBoxes.execute([frame(flat), frame()], 1.5, True).args == ([[], []],)
