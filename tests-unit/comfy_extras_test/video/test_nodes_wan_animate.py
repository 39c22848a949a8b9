"""The node of Wan 2.2's Animate: a figure, poses, a face, a background with room for the figure, and videos in parts."""

import pytest
import torch

import comfy.clip_vision
from comfy_extras import nodes_wan
from comfy_extras.wan_animate_nodes import WanAnimateToVideo

WIDTH, HEIGHT, LENGTH = 64, 48, 9
FREE = [0] * 4 + [1] * 12  # of the picture, then of three latent frames


class Averages:
    """Stands for an autoencoder: a cell holds the mean of its pixels, of one frame of four."""

    def encode(self, frames):
        assert frames.shape[1:] == (HEIGHT, WIDTH, 3)
        return torch.nn.functional.avg_pool2d(frames[::4].movedim(-1, 1), 8).mean(dim=1).expand(16, -1, -1, -1)[None].clone()


def run(**options):
    """What both conditionings were given, the latent, and the three numbers."""
    settings = {"continue_motion_max_frames": 5, "video_frame_offset": 0, "length": LENGTH, "batch_size": 2}
    sides = {"positive": [[torch.zeros(1, 4, 8), {}]], "negative": [[torch.ones(1, 4, 8), {}]]}
    positive, negative, latent, *ends = WanAnimateToVideo.execute(
        **sides, vae=Averages(), width=WIDTH, height=HEIGHT, **{**settings, **options}
    ).args
    assert positive[0][1].keys() == negative[0][1].keys()
    return positive[0][1], negative[0][1], latent["samples"], ends


def film(*levels, sides=(HEIGHT, WIDTH), channels=3):
    """A frame of each of *levels*."""
    return torch.tensor([float(level) for level in levels]).view(-1, 1, 1, 1).expand(-1, *sides, channels).clone()


def free(values, row=0, column=0):
    """The mask at one place, frame by frame."""
    return values["concat_mask"][0, :, :, row, column].T.flatten().tolist()


def test_the_module_offers_it():
    assert WanAnimateToVideo in nodes_wan.MOVES


def test_nothing_given_is_a_black_picture_and_a_grey_video_that_is_free():
    values, _, latent, ends = run()
    assert values.keys() == {"concat_latent_image", "concat_mask"} and ends == [1, 0, LENGTH]
    assert latent.shape == (2, 16, 4, 6, 8) and latent.count_nonzero() == 0
    assert values["concat_latent_image"].shape == (1, 16, 4, 6, 8)
    assert values["concat_latent_image"][0, 0, :, 0, 0].tolist() == [0.0, 0.5, 0.5, 0.5]
    assert values["concat_mask"].shape == (1, 4, 4, 6, 8) and free(values) == FREE


def test_a_figure_poses_and_a_face_are_told():
    seen = comfy.clip_vision.Output()
    face = film(*[level / 10 for level in range(7)], sides=(40, 60), channels=4)
    values, negative, _, ends = run(
        reference_image=film(0.25, sides=(100, 90), channels=4),
        pose_video=film(*[level / 10 for level in range(7)]),
        face_video=face,
        clip_vision_output=seen,
        video_frame_offset=2,
    )
    assert values["concat_latent_image"][0, 0, :, 0, 0].tolist() == [0.25, 0.5, 0.5, 0.5] and ends == [1, 0, 2 + LENGTH]
    assert values["clip_vision_output"] is negative["clip_vision_output"] is seen
    torch.testing.assert_close(values["pose_video_latent"][0, 0, :, 0, 0], torch.tensor([0.2, 0.6, 0.6]))  # the last one stands still
    assert torch.equal(values["pose_video_latent"], negative["pose_video_latent"])
    assert values["face_video_pixels"].shape == (1, 3, 5, 512, 512)
    torch.testing.assert_close(values["face_video_pixels"][0, 0, :, 0, 0], torch.tensor([-0.6, -0.4, -0.2, 0.0, 0.2]))
    assert negative["face_video_pixels"].shape == (1, 3, 5, 512, 512) and negative["face_video_pixels"].eq(-1.0).all()


def test_several_pictures_make_several_latent_frames():
    values, _, latent, ends = run(reference_image=film(*[0.1] * 5))
    assert ends == [2, 0, LENGTH] and latent.shape[2] == 5 and free(values) == [0] * 8 + [1] * 12


def test_a_background_changes_where_the_figure_is_to_be():
    mask = torch.zeros(6, HEIGHT, WIDTH)
    mask[:, :, WIDTH // 2 :] = 1.0
    values, *_ = run(background_video=film(*[0.9] * 6), character_mask=mask)
    torch.testing.assert_close(values["concat_latent_image"][0, 0, :, 0, 0], torch.tensor([0.0, 0.9, 0.9, 0.5]))
    assert free(values, column=7) == FREE and free(values) == [0] * 10 + [1] * 6  # the mask has six frames
    alone, *_ = run(background_video=film(*[0.9] * 6), character_mask=mask[:1])
    assert free(alone) == [0] * 4 + [0] * LENGTH + [1] * 3 and free(alone, column=7) == FREE
    later, *_ = run(character_mask=mask, video_frame_offset=4)
    assert free(later) == [0] * 6 + [1] * 10


def test_a_video_goes_on():
    before, videos = film(*[level / 10 for level in range(10)]), film(*[level / 20 for level in range(20)])
    mask = torch.zeros(1, HEIGHT, WIDTH)
    values, _, latent, ends = run(
        continue_motion=before, video_frame_offset=10, pose_video=videos, background_video=videos, character_mask=mask
    )
    assert ends == [1, 5, 5 + LENGTH] and latent.shape[2] == 4
    assert free(values) == [0] * 4 + [0] * 9 + [1] * 3
    torch.testing.assert_close(values["concat_latent_image"][0, 0, :, 0, 0], torch.tensor([0.0, 0.5, 0.9, 13 / 20]))
    torch.testing.assert_close(values["pose_video_latent"][0, 0, :, 0, 0], torch.tensor([5 / 20, 9 / 20, 13 / 20]))
    plain, *_ = run(continue_motion=before, video_frame_offset=10)
    assert free(plain) == [0] * 4 + [0] * 8 + [1] * 4


@pytest.mark.parametrize(("most", "length", "overlap"), [(1, 9, 1), (4, 9, 1), (9, 9, 9), (13, 5, 5)])
def test_it_begins_with_as_many_frames_as_asked_for(most, length, overlap):
    _, _, _, ends = run(continue_motion=film(*[0.1] * 20), continue_motion_max_frames=most, video_frame_offset=30, length=length)
    assert ends == [1, overlap, 30 - most + length]
    assert run(continue_motion=film(*[0.1] * 20), continue_motion_max_frames=most, video_frame_offset=0, length=length)[3][2] == length


def test_videos_that_have_ended_do_not_count():
    ended = film(*[0.1] * 3)
    videos = {"pose_video": ended, "face_video": ended, "background_video": ended, "character_mask": torch.zeros(3, HEIGHT, WIDTH)}
    values, *_ = run(**videos, video_frame_offset=3)
    assert values.keys() == {"concat_latent_image", "concat_mask"} and free(values) == FREE
    assert values["concat_latent_image"][0, 0, :, 0, 0].tolist() == [0.0, 0.5, 0.5, 0.5]
