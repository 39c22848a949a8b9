"""Cosmos's latents that begin and end with pictures."""

import pytest
import torch

from comfy.latent_formats import Wan21
from comfy_extras.nodes_cosmos import CosmosImageToVideoLatent, CosmosPredict2ImageToVideoLatent, EmptyCosmosLatentVideo

SIZES = {"width": 64, "height": 48, "length": 25, "batch_size": 2}


class Averages:
    """Stands for an autoencoder: a cell holds the mean of its pixels, of one frame of *step*."""

    def __init__(self, step):
        self.step, self.asked = step, []

    def encode(self, frames):
        self.asked.append(len(frames))
        return torch.nn.functional.avg_pool2d(frames[:: self.step].movedim(-1, 1), 8).mean(dim=1).expand(16, -1, -1, -1)[None].clone()


def film(frames, level):
    return torch.full((frames, 50, 70, 4), level)


def made(node, **pictures):
    vae = Averages(node.STEP)
    latent = node.execute(vae, **SIZES, **pictures).args[0]
    return latent, vae.asked


@pytest.mark.parametrize(("node", "cells"), [(CosmosImageToVideoLatent, 4), (CosmosPredict2ImageToVideoLatent, 7)])
def test_videos_begin_and_end_with_pictures(node, cells):
    latent, asked = made(node, start_image=film(1, 0.25), end_image=film(1, 0.75))
    assert latent["samples"].shape == (2, 16, cells, 6, 8) and latent["noise_mask"].shape == (2, 1, cells, 6, 8) and asked == [9, 1]
    assert latent["noise_mask"][1, 0, :, 0, 0].tolist() == [0.0, *[1.0] * (cells - 2), 0.0]
    torch.testing.assert_close(latent["samples"][:, :, [0, -1]].amax(dim=(0, 1, 3, 4)), torch.tensor([0.25, 0.75]))
    blank = torch.zeros(1, 16, 1, 1, 1) if node is CosmosImageToVideoLatent else Wan21().process_out(torch.zeros(1, 16, 1, 1, 1))
    torch.testing.assert_close(latent["samples"][:, :, 1:-1], blank.expand(2, -1, cells - 2, 6, 8))


def test_several_frames_at_the_end_are_as_many_as_the_video_has():
    latent, asked = made(CosmosPredict2ImageToVideoLatent, end_image=film(5, 0.75))
    assert asked == [1] and latent["noise_mask"][0, 0, :, 0, 0].tolist() == [1.0] * 6 + [0.0]
    latent, asked = made(CosmosImageToVideoLatent, start_image=film(40, 0.5))
    assert asked == [25] and not latent["noise_mask"].any()


def test_without_a_picture_the_latent_is_empty():
    for node in (CosmosImageToVideoLatent, CosmosPredict2ImageToVideoLatent):
        latent, asked = made(node)
        assert "noise_mask" not in latent and len(latent["samples"]) == 1 and not latent["samples"].any() and not asked
    assert EmptyCosmosLatentVideo.execute(64, 48, 25, 2).args[0]["samples"].shape == (2, 16, 4, 6, 8)
