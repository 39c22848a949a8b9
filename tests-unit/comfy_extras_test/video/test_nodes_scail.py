"""SCAIL's node: pictures, poses, masks of figures, videos that go on."""

import torch

from comfy_extras.nodes_scail import WanSCAILToVideo

USUAL = {"pose_strength": 1.0, "pose_start": 0.0, "pose_end": 1.0, "video_frame_offset": 0, "previous_frame_count": 5}
SIZES = {"width": 64, "height": 32, "length": 9, "batch_size": 1}


class Averages:
    """Stands for an autoencoder: a cell holds the mean of its pixels, of one frame of four."""

    def encode(self, frames):
        return torch.nn.functional.avg_pool2d(frames[::4].movedim(-1, 1), 8).mean(dim=1).expand(16, -1, -1, -1)[None].clone()


def run(**options):
    side = [[torch.zeros(1, 4, 8), {}]]
    positive, negative, latent, offset = WanSCAILToVideo.execute(side, side, Averages(), **{**USUAL, **SIZES, **options}).args
    assert [part[1].keys() for part in positive] == [part[1].keys() for part in negative]
    return [part[1] for part in positive], latent, offset


def coloured(*colours):
    """Pictures of one colour each."""
    return torch.tensor(colours, dtype=torch.float32)[:, None, None].expand(-1, 32, 64, 3)


def test_poses_are_half_as_large_and_count_for_a_part():
    (values,), latent, offset = run(pose_video=torch.ones(20, 32, 64, 3), pose_strength=0.5)
    assert values["pose_video_latent"].shape == (1, 16, 3, 2, 4) and values["pose_video_latent"].eq(0.5).all()
    assert latent["samples"].shape == (1, 16, 3, 4, 8) and offset == 9 and values["ref_mask_flag"] is True
    parts, _, _ = run(pose_video=torch.ones(20, 32, 64, 3), pose_end=0.5)
    assert ["pose_video_latent" in part for part in parts] == [True, False]


def test_poses_and_masks_are_cut_to_the_shorter_and_may_have_ended():
    (values,), _, _ = run(pose_video=torch.ones(20, 32, 64, 3), pose_video_mask=coloured(*[(1, 0, 0)] * 8))
    assert values["pose_video_latent"].shape[2] == 2 and values["driving_mask_28ch"].shape == (1, 2, 28, 2, 4)
    (values,), _, offset = run(pose_video=torch.ones(20, 32, 64, 3), pose_video_mask=coloured((1, 0, 0)), video_frame_offset=20)
    assert values.keys() == {"ref_mask_flag"} and offset == 29


def test_each_colour_is_a_channel_of_each_frame():
    colours = [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (0, 0, 0), (0.8, 0, 0)]
    (values,), _, _ = run(pose_video_mask=coloured(*colours))
    found = values["driving_mask_28ch"][0, :, :, 0, 0].unflatten(1, (4, 7)).flatten(0, 1)
    assert found.argmax(dim=1).tolist()[:10] == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6] and found[:10].sum(dim=1).eq(1).all()
    assert not found[10:].any()  # black, and red that is too dark


def test_pictures_are_masked_where_figures_are_replaced():
    pictures, masks = torch.ones(2, 32, 64, 3), coloured((1, 0, 0), (0, 0, 0))
    (values,), _, _ = run(reference_image=pictures, reference_image_mask=masks, replacement_mode=True)
    assert [latent.mean() for latent in values["reference_latents"]] == [1.0, 0.0] and values["ref_mask_flag"] is False
    shown = values["ref_mask_28ch"]
    assert shown.shape == (1, 5, 28, 4, 8) and shown.flatten(2).any(dim=2).tolist() == [[False, True, False, False, False]]
    (values,), _, _ = run(reference_image=pictures, reference_image_mask=masks[:1])
    assert values["ref_mask_28ch"].flatten(2).any(dim=2).tolist() == [[True, True, False, False, False]]
    assert all(latent.eq(1).all() for latent in values["reference_latents"])


def test_a_video_goes_on():
    _, latent, offset = run(previous_frames=torch.ones(12, 32, 64, 3), video_frame_offset=12)
    assert offset == 7 + 9 and latent["samples"][0, 0, :, 0, 0].tolist() == [1, 1, 0]
    assert latent["noise_mask"][0, 0, :, 0, 0].tolist() == [0, 0, 1]
