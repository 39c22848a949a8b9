"""Wan-Move's nodes: tracks made, read, joined and drawn, and a video that follows them."""

import pytest
import torch

from comfy_extras.nodes_wanmove import (
    GenerateTracks,
    WanMoveConcatTrack,
    WanMoveTracksFromCoords,
    WanMoveTrackToVideo,
    WanMoveVisualizeTracks,
)

MOVE = {"start_x": 0.0, "start_y": 0.5, "mid_x": 0.5, "mid_y": 0.0, "end_x": 1.0, "end_y": 0.5, "num_frames": 9, "num_tracks": 3}
MOVE |= {"width": 64, "height": 32, "track_spread": 0.25}
DRAW = {"line_resolution": 24, "circle_size": 2, "opacity": 1.0, "line_width": 2}


class Averages:
    """Stands for an autoencoder: a cell holds the mean of its pixels, of one frame of four."""

    def encode(self, frames):
        return torch.nn.functional.avg_pool2d(frames[::4].movedim(-1, 1), 8).mean(dim=1).expand(16, -1, -1, -1)[None].clone()


def made(**options):
    """Tracks and their length."""
    return GenerateTracks.execute(**{**MOVE, **options}).args


def paths(**options):
    """The paths of tracks."""
    return made(**options)[0]["track_path"]


def moved(tracks, strength=1.0, pictures=1):
    """The latent that begins a video with *pictures* whose left half is bright, and its mask."""
    picture = torch.zeros(pictures, 32, 64, 3)
    picture[:, :, :32] = 1.0
    side = [[torch.zeros(1, 4, 8), {}]]
    sizes = {"width": 64, "height": 32, "length": 9, "batch_size": 1}
    outputs = WanMoveTrackToVideo.execute(side, side, Averages(), **sizes, strength=strength, tracks=tracks, start_image=picture).args
    assert outputs[2]["samples"].shape == (1, 16, 3, 4, 8)
    both = [outputs[number][0][1]["concat_latent_image"] for number in (0, 1)]
    assert torch.equal(*both)
    return both[0], outputs[0][0][1]["concat_mask"]


def test_tracks_go_side_by_side_from_start_to_end():
    tracks, length = made()
    assert length == 9 and tracks["track_path"].shape == (9, 3, 2) and tracks["track_visibility"].all()
    assert tracks["track_path"][4].tolist() == [[32.0, 4.0], [32.0, 16.0], [32.0, 28.0]]


def test_a_curve_bends_to_its_middle_point():
    assert paths(bezier=True, num_tracks=1)[:, 0].tolist()[4] == [32.0, 8.0]


@pytest.mark.parametrize(
    "pace, quarter", [("linear", 16.0), ("ease_in", 4.0), ("ease_out", 28.0), ("ease_in_out", 10.0), ("constant", 0.0)]
)
def test_points_move_at_a_pace(pace, quarter):
    assert paths(interpolation=pace)[2, 1, 0] == quarter


def test_tracks_of_points_that_stand_still_lie_side_by_side():
    assert paths(end_x=0.0)[0].tolist() == [[-12.0, 16.0], [0.0, 16.0], [12.0, 16.0]]


def test_a_mask_hides_points_in_frames_of_nothing():
    mask = torch.zeros(9, 4, 4)
    mask[3, 1, 1] = 0.5
    assert made(track_mask=mask)[0]["track_visibility"].sum(dim=1).tolist() == [0, 0, 0, 3, 0, 0, 0, 0, 0]
    assert made(track_mask=torch.ones(1, 4, 4))[0]["track_visibility"].all()
    with pytest.raises(ValueError, match="4 frames and the tracks have 9"):
        made(track_mask=mask[:4])


def test_tracks_from_text_may_end_at_different_times():
    text = '[[{"x": 1, "y": 2}, {"x": 3, "y": 4}], [{"x": 5, "y": 6}]]'
    tracks, length = WanMoveTracksFromCoords.execute(text).args
    assert length == 2 and tracks["track_path"].tolist() == [[[1, 2], [5, 6]], [[3, 4], [5, 6]]]
    assert tracks["track_visibility"].tolist() == [[True, True], [True, False]]
    with pytest.raises(ValueError, match="holds no tracks"):
        WanMoveTracksFromCoords.execute("[]")


def test_tracks_are_joined_when_they_are_as_long():
    masked = made(num_tracks=2, track_mask=torch.zeros(1, 4, 4))[0]
    both = WanMoveConcatTrack.execute(made()[0], masked).args[0]
    assert both["track_path"].shape == (9, 5, 2) and both["track_visibility"][0].tolist() == [True] * 3 + [False] * 2
    assert WanMoveConcatTrack.execute(both).args[0] is both
    with pytest.raises(ValueError, match="9 frames and tracks_2 has 5"):
        WanMoveConcatTrack.execute(both, made(num_frames=5)[0])


def test_parts_of_the_picture_follow_the_tracks():
    tracks = {"track_path": torch.full((9, 1, 2), 4.0), "track_visibility": torch.ones(9, 1, dtype=torch.bool)}
    tracks["track_path"][:, 0, 0] += torch.arange(9) * 7
    latent, mask = moved(tracks)
    still, _ = moved(None)
    changed = (latent != still).any(dim=1)[0].nonzero().tolist()
    assert changed == [[1, 0, 4], [2, 0, 7]] and latent[0, :, 2, 0, 7].unique().tolist() == [1.0]
    assert moved(tracks, strength=0.5)[0][0, 0, 2, 0, 7] == 0.75
    assert mask.shape == (1, 1, 3, 4, 8) and mask.sum(dim=(0, 1, 3, 4)).tolist() == [0, 32, 32]


def test_points_outside_or_hidden_move_nothing():
    hidden = made(track_mask=torch.zeros(1, 2, 2))[0]
    away = {"track_path": torch.full((9, 2, 2), 64.0), "track_visibility": torch.ones(9, 2, dtype=torch.bool)}
    still, _ = moved(None)
    assert all(torch.equal(moved(tracks)[0], still) for tracks in (hidden, away))


def test_tracks_are_drawn_over_pictures():
    tracks = made(num_tracks=1)[0]
    video = WanMoveVisualizeTracks.execute(torch.zeros(1, 32, 64, 3), **DRAW, tracks=tracks).args[0]
    assert video.shape == (9, 32, 64, 3)
    assert torch.allclose(video[4, 18, 32], torch.tensor([102, 153, 255]) / 255) and video[4, 16, 16].sum() > 0
    assert not video[:, :8].any() and not video[0, 16, 16:].any()
    longer = WanMoveVisualizeTracks.execute(torch.zeros(12, 32, 64, 3), **DRAW, tracks=tracks).args[0]
    assert len(longer) == 12 and not longer[9:].any()
    assert WanMoveVisualizeTracks.execute(video, **DRAW).args[0] is video
