"""Wan's nodes: starts and ends of videos, videos to go by, masks, cameras, what models look at."""

import json

import pytest
import torch

import comfy.clip_vision
from comfy.latent_formats import Wan21, Wan22
from comfy_extras import nodes_wan, wan_conditioning
from comfy_extras.nodes_bernini import BerniniConditioning
from comfy_extras.nodes_camera_trajectory import WanCameraEmbedding
from comfy_extras.wan_animate_nodes import WanAnimate2ToVideo
from comfy_extras.wan_control_nodes import TrimVideoLatent, Wan22FunControlToVideo, WanFunControlToVideo, WanVaceToVideo
from comfy_extras.wan_picture_nodes import (
    Wan22ImageToVideoLatent,
    WanCameraImageToVideo,
    WanFirstLastFrameToVideo,
    WanFunInpaintToVideo,
    WanImageToVideo,
    WanPhantomSubjectToVideo,
)
from comfy_extras.wan_track_nodes import WanTrackToVideo

WIDTH, HEIGHT, LENGTH = 64, 48, 9


class Averages:
    """Stands for an autoencoder: a cell holds the mean of its pixels, of one frame of four."""

    def __init__(self, channels=16, side=8):
        self.latent_channels, self.side = channels, side

    def spacial_compression_encode(self):
        return self.side

    def encode(self, frames):
        means = torch.nn.functional.avg_pool2d(frames[::4].movedim(-1, 1), self.side).mean(dim=1)
        return means.expand(self.latent_channels, -1, -1, -1)[None].clone()


def sides():
    return {"positive": [[torch.zeros(1, 4, 8), {}]], "negative": [[torch.ones(1, 4, 8), {}]]}


def run(node, vae=None, **options):
    sizes = {"width": WIDTH, "height": HEIGHT, "length": LENGTH, "batch_size": 2}
    return node.execute(**sides(), vae=vae or Averages(), **sizes, **options).args


def told(outputs):
    """What both conditionings were given, which must be the same."""
    positive, negative = (side[0][1] for side in outputs[:2])
    assert positive.keys() == negative.keys()
    return positive


def seen(value):
    output = comfy.clip_vision.Output()
    output.penultimate_hidden_states = torch.full((1, 3, 4), value)
    return output


def test_the_module_lists_every_node_once():
    nodes = [*nodes_wan.PICTURES, *nodes_wan.VIDEOS]
    assert len({node.GET_SCHEMA().node_id for node in nodes}) == len(nodes) == 11


def test_a_video_begins_with_a_picture_and_is_free_after_it():
    outputs = run(WanImageToVideo, start_image=torch.ones(1, 100, 90, 4), clip_vision_output=seen(1.0))
    values = told(outputs)
    assert outputs[2]["samples"].shape == (2, 16, 3, 6, 8) and outputs[2]["samples"].count_nonzero() == 0
    assert values["concat_latent_image"][0, 0, :, 0, 0].tolist() == [1.0, 0.5, 0.5]
    assert values["concat_mask"].shape == (1, 1, 3, 6, 8) and values["concat_mask"].mean(dim=(0, 1, 3, 4)).tolist() == [0.0, 1.0, 1.0]
    assert values["clip_vision_output"].penultimate_hidden_states.mean() == 1.0
    assert told(run(WanImageToVideo)) == {}


def test_a_video_ends_with_a_picture_too():
    picture = torch.ones(1, HEIGHT, WIDTH, 3)
    both = {"start_image": picture, "end_image": picture * 0.25}
    values = told(run(WanFirstLastFrameToVideo, **both, clip_vision_start_image=seen(1.0), clip_vision_end_image=seen(2.0)))
    assert values["concat_latent_image"][0, 0, :, 0, 0].tolist() == [1.0, 0.5, 0.25]
    free = values["concat_mask"][0, :, :, 0, 0]
    assert free.T.flatten().tolist() == [0.0] * 4 + [1.0] * 7 + [0.0]
    assert values["clip_vision_output"].penultimate_hidden_states.flatten(1).mean(dim=1).tolist() == [1.5]
    inpainted = told(run(WanFunInpaintToVideo, **both, clip_vision_output=seen(1.0)))
    assert torch.equal(inpainted["concat_mask"], values["concat_mask"])
    end = told(run(WanFirstLastFrameToVideo, end_image=picture, clip_vision_end_image=seen(2.0)))
    assert end["concat_mask"][0, :, :, 0, 0].T.flatten().tolist() == [1.0] * 11 + [0.0]
    wide = run(WanFirstLastFrameToVideo, Averages(48, 16), start_image=picture)
    assert wide[2]["samples"].shape == (2, 48, 3, 3, 4) and told(wide)["concat_mask"].shape == (1, 4, 3, 3, 4)


def test_control_models_get_the_video_then_the_start():
    video, blank = torch.ones(LENGTH, HEIGHT, WIDTH, 3), Wan21().latents_mean.flatten()
    outputs = run(WanFunControlToVideo, control_video=video)
    given = told(outputs)["concat_latent_image"]
    assert given.shape == (2, 32, 3, 6, 8) and torch.equal(given[:, :16], torch.ones(2, 16, 3, 6, 8))
    torch.testing.assert_close(given[0, 16:, 0, 0, 0], blank)
    newer = told(run(Wan22FunControlToVideo, control_video=video, start_image=video[:1] * 0.5, ref_image=video[:1] * 0.25))
    assert newer["concat_latent_image"][0, 16, 0].unique().tolist() == [0.5] and newer["concat_mask_index"] == 16
    assert newer["reference_latents"][0].unique().tolist() == [0.25]
    assert newer["concat_mask"][0, :, :, 0, 0].T.flatten().tolist() == [0.0] * 4 + [1.0] * 8


def test_vace_tells_what_may_change_from_what_may_not():
    video, masks = torch.ones(LENGTH, HEIGHT, WIDTH, 3), torch.zeros(LENGTH, HEIGHT, WIDTH)
    masks[:, :, : WIDTH // 2] = 1.0
    outputs = run(WanVaceToVideo, strength=0.5, control_video=video, control_masks=masks)
    values = told(outputs)
    kept, changed = values["vace_frames"][0].split(16, dim=1)
    assert kept[0, 0, 0, 0].tolist() == [0.5] * 4 + [1.0] * 4 and changed[0, 0, 0, 0].tolist() == [1.0] * 4 + [0.5] * 4
    assert values["vace_mask"][0].shape == (1, 64, 3, 6, 8) and values["vace_mask"][0][0, 0, 0, 0].tolist() == [1.0] * 4 + [0.0] * 4
    assert values["vace_strength"] == [0.5] and outputs[3] == 0 and outputs[2]["samples"].shape == (2, 16, 3, 6, 8)


def test_a_picture_for_vace_stands_before_the_video_and_is_trimmed_again():
    outputs = run(WanVaceToVideo, strength=1.0, reference_image=torch.ones(1, HEIGHT, WIDTH, 3))
    values = told(outputs)
    assert values["vace_frames"][0].shape == (1, 32, 4, 6, 8) and values["vace_mask"][0][0, :, 0].count_nonzero() == 0
    assert outputs[2]["samples"].shape == (2, 16, 4, 6, 8) and outputs[3] == 1
    trimmed = TrimVideoLatent.execute({**outputs[2], "kept": 1}, outputs[3]).args[0]
    assert trimmed["samples"].shape == (2, 16, 3, 6, 8) and trimmed["kept"] == 1


def test_subjects_stand_behind_the_video():
    positive, text, neither, latent = run(WanPhantomSubjectToVideo, images=torch.ones(2, HEIGHT, WIDTH, 3))
    assert positive[0][1]["time_dim_concat"].shape == (1, 16, 2, 6, 8)
    assert torch.equal(text[0][1]["time_dim_concat"], positive[0][1]["time_dim_concat"])
    torch.testing.assert_close(neither[0][1]["time_dim_concat"], Wan21().latents_mean.expand(1, 16, 2, 6, 8))
    assert latent["samples"].shape == (2, 16, 3, 6, 8) and "time_dim_concat" not in run(WanPhantomSubjectToVideo)[0][0][1]


def test_the_5b_models_latent_keeps_its_first_frames():
    sizes = {"vae": Averages(48, 16), "width": WIDTH, "height": HEIGHT, "length": LENGTH, "batch_size": 2}
    empty = Wan22ImageToVideoLatent.execute(**sizes).args[0]
    assert empty["samples"].shape == (1, 48, 3, 3, 4) and "noise_mask" not in empty
    begun = Wan22ImageToVideoLatent.execute(**sizes, start_image=torch.ones(1, HEIGHT, WIDTH, 3)).args[0]
    assert begun["samples"].shape == (2, 48, 3, 3, 4) and begun["samples"][:, :, 0].unique().tolist() == [1.0]
    torch.testing.assert_close(begun["samples"][1, :, 1, 0, 0], Wan22().latents_mean.flatten())
    assert begun["noise_mask"].shape == (2, 1, 3, 3, 4) and begun["noise_mask"].mean(dim=(0, 1, 3, 4)).tolist() == [0.0, 1.0, 1.0]


def camera(pose, **options):
    return WanCameraEmbedding.execute(camera_pose=pose, width=WIDTH, height=HEIGHT, length=LENGTH, **options).args


def test_rays_of_a_camera_that_stands_still_are_the_same_in_every_frame():
    rays, *sizes = camera("Static")
    assert rays.shape == (1, 24, 3, HEIGHT, WIDTH) and sizes == [WIDTH, HEIGHT, LENGTH]
    assert torch.equal(rays[:, :, 0], rays[:, :, 2]) and rays[:, [0, 4, 8]].count_nonzero() == 0  # no moment: it stands at the origin
    directions = rays[0].view(6, 4, 3, HEIGHT, WIDTH)[3:]
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(4, 3, HEIGHT, WIDTH))
    assert directions[2].min() > 0 and directions[0, 0, 0, 0, 0] < 0 < directions[0, 0, 0, 0, -1]


def test_a_camera_moves_and_turns_from_its_first_frame_on():
    still = camera("Static")[0]
    for pose in ("Pan Left", "Zoom In", "ClockWise (CW)"):
        moved = camera(pose)[0]
        torch.testing.assert_close(moved[:, :, 0], still[:, :, 0])
        assert not torch.allclose(moved[:, :, 1], still[:, :, 1], atol=1e-3)
    left, right = camera("Pan Left")[0], camera("Pan Right")[0]
    torch.testing.assert_close(left.view(6, 4, 3, HEIGHT, WIDTH)[:3], -right.view(6, 4, 3, HEIGHT, WIDTH)[:3])
    assert not torch.allclose(camera("Zoom In", speed=2.0)[0], camera("Zoom In")[0], atol=1e-3)


def test_a_camera_and_a_start_are_told_together():
    rays = camera("Pan Up")[0]
    values = told(run(WanCameraImageToVideo, start_image=torch.ones(1, HEIGHT, WIDTH, 3), camera_conditions=rays))
    assert values["camera_conditions"] is rays and values["concat_latent_image"].shape == (2, 16, 3, 6, 8)
    assert values["concat_latent_image"][:, :, 0].unique().tolist() == [1.0] and values["concat_mask"].shape == (1, 4, 3, 6, 8)
    assert told(run(WanCameraImageToVideo)) == {}


def test_bernini_sees_videos_and_pictures_in_order_of_their_size():
    pictures = {"reference_image_1": torch.ones(2, 100, 40, 3), "reference_image_0": torch.zeros(1, 50, 50, 4), "reference_image_2": None}
    video = torch.full((12, HEIGHT, WIDTH, 3), 0.5)
    outputs = run(BerniniConditioning, source_video=video, reference_video=video, reference_images=pictures, ref_max_size=32)
    given = told(outputs)["context_latents"]
    shapes = [(1, 16, 3, 6, 8), (1, 16, 3, 4, 4), (1, 16, 1, 4, 4), (1, 16, 1, 4, 2), (1, 16, 1, 4, 2)]
    assert [tuple(latent.shape) for latent in given] == shapes and given[2].count_nonzero() == 0
    assert told(run(BerniniConditioning)) == {}


WAY = [{"x": 10 + step / 4, "y": 24} for step in range(121)]
TRACKED = {"temperature": 220.0, "topk": 2, "start_image": torch.ones(1, HEIGHT, WIDTH, 3)}


def test_points_of_a_picture_follow_tracks():
    outputs = run(WanTrackToVideo, tracks=json.dumps([WAY, WAY[:1]]), **TRACKED, clip_vision_output=seen(1.0))
    values = told(outputs)
    assert values["concat_latent_image"].shape == (2, 16, 3, 6, 8) and values["concat_mask"].shape == (2, 4, 3, 6, 8)
    free = values["concat_mask"][0, 0]
    assert free[0].unique().tolist() == [0.0] and free[1:].max() > 0.9
    goes = [int(free[cell].min(dim=0).values.argmin()) for cell in (1, 2)]
    assert goes[0] < goes[1]  # to the right
    assert values["clip_vision_output"].penultimate_hidden_states.mean() == 1.0


def test_tracks_are_read_one_by_one_or_per_picture():
    alone, listed, batched = (told(run(WanTrackToVideo, tracks=json.dumps(tracks), **TRACKED)) for tracks in (WAY, [WAY], [[WAY]]))
    assert torch.equal(alone["concat_mask"], listed["concat_mask"]) and torch.equal(listed["concat_mask"], batched["concat_mask"])
    without = told(run(WanTrackToVideo, tracks=" ", **TRACKED))
    assert torch.equal(without["concat_mask"], told(run(WanImageToVideo, start_image=TRACKED["start_image"]))["concat_mask"])
    long = {"width": WIDTH, "height": HEIGHT, "length": 121, "batch_size": 1}
    whole = WanTrackToVideo.execute(**sides(), vae=Averages(), tracks=json.dumps(WAY), **long, **TRACKED).args
    assert told(whole)["concat_mask"].shape == (1, 4, 31, 6, 8)


@pytest.mark.parametrize("tracks", ["[{", '[{"x": 1}]', "[1]", '[{"x": 1, "y": 2}, 5]', '{"x": 1, "y": 2}', "[[[[]]]]"])
def test_other_texts_are_no_tracks(tracks):
    with pytest.raises(ValueError, match="tracks are"):
        run(WanTrackToVideo, tracks=tracks, **TRACKED)


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (4, 1), (5, 2), (81, 21)])
def test_four_frames_make_a_cell_but_for_the_first(length, expected):
    assert wan_conditioning.cells(length) == expected


def test_a_picture_is_told_to_move_as_a_video():
    picture, film = torch.rand(1, 40, 70, 3), torch.rand(6, 50, 60, 3)
    outputs = run(WanAnimate2ToVideo, reference_image=picture, pose_video=film, clip_vision_output=seen(1.0), video_frame_offset=1)
    values = told(outputs)
    assert outputs[2]["samples"].shape == (2, 16, 4, 6, 8) and outputs[3:] == (1, 0, 10)
    assert values["concat_latent_image"].shape == (1, 16, 4, 6, 8) and values["concat_mask"][0, 0, :, 0, 0].tolist() == [0, 1, 1, 1]
    assert values["pose_video_latent"].shape == (1, 16, 3, 6, 8) and values["clip_vision_output_pose"] is values["clip_vision_output"]
    torch.testing.assert_close(values["pose_video_latent"][:, :, 1], values["pose_video_latent"][:, :, 2])  # the last frame stands still
    assert values["cross_attn_pose"].eq(0).all() and "pose_strength" not in values


def test_a_pose_may_count_for_a_part_of_the_sampling_and_go_on():
    film, before = torch.rand(20, 50, 60, 3), torch.rand(4, 50, 60, 3)
    options = {"pose_start_percent": 0.2, "pose_end_percent": 0.7, "pose_strength": 0.5, "reference_image_strength": 2.0}
    outputs = run(WanAnimate2ToVideo, pose_video=film, continue_motion=before, video_frame_offset=9, **options)
    ranges = [(part[1]["start_percent"], part[1]["end_percent"], "pose_video_latent" in part[1]) for part in outputs[0]]
    assert ranges == [(0.2, 0.7, True), (0.0, 0.2, False), (0.7, 1.0, False)]
    assert outputs[0][0][1]["pose_strength"] == 0.5 and all(part[1]["reference_strength"] == 2.0 for part in outputs[1])
    assert outputs[3:] == (1, 1, 17) and outputs[0][0][1]["concat_mask"][0, 0, :, 0, 0].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="none are left"):
        run(WanAnimate2ToVideo, pose_video=film, video_frame_offset=20)
    with pytest.raises(ValueError, match="choose it smaller"):
        run(WanAnimate2ToVideo, video_frame_offset=0, pose_start_percent=0.8, pose_end_percent=0.7)
