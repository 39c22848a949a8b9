import pytest
import torch

import nodes


class Vae:
    """Remembers what it was given; latents are eighth-size means of the pixels."""

    def __init__(self, frames_per_cell=None):
        self.frames_per_cell = frames_per_cell
        self.encoded = []
        self.tiling = None

    def encode(self, pixels):
        self.encoded.append(pixels)
        return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)

    def decode(self, latent):
        return latent.repeat_interleave(8, 2).repeat_interleave(8, 3).movedim(1, -1)

    def encode_tiled(self, pixels, **tiling):
        self.tiling = tiling
        return self.encode(pixels)

    def decode_tiled(self, latent, **tiling):
        self.tiling = tiling
        return self.decode(latent)

    def spacial_compression_encode(self):
        return 8

    def spacial_compression_decode(self):
        return 8

    def temporal_compression_decode(self):
        return self.frames_per_cell


def test_decode_and_encode_use_the_vae():
    latent = {"samples": torch.rand(2, 3, 2, 2)}
    (images,) = nodes.VAEDecode().decode(Vae(), latent)
    assert images.shape == (2, 16, 16, 3)
    assert torch.allclose(nodes.VAEEncode().encode(Vae(), images)[0]["samples"], latent["samples"])


def test_frames_of_a_video_become_a_batch():
    class Video(Vae):
        def decode(self, latent):
            return torch.zeros(2, 5, 8, 8, 3)

    assert nodes.VAEDecode().decode(Video(), {"samples": torch.zeros(1)})[0].shape == (10, 8, 8, 3)


@pytest.mark.parametrize(("tile", "overlap", "expected"), [(512, 64, (64, 8)), (128, 64, (16, 4))])
def test_tiles_are_given_in_cells_with_a_limited_overlap(tile, overlap, expected):
    vae = Vae()
    nodes.VAEDecodeTiled().decode(vae, {"samples": torch.zeros(1, 3, 2, 2)}, tile, overlap)
    assert vae.tiling == {"tile_x": expected[0], "tile_y": expected[0], "overlap": expected[1], "tile_t": None, "overlap_t": None}


def test_time_tiles_are_given_in_compressed_frames():
    vae = Vae(frames_per_cell=4)
    nodes.VAEDecodeTiled().decode(vae, {"samples": torch.zeros(1, 3, 2, 2)}, 512, 64, 64, 8)
    assert (vae.tiling["tile_t"], vae.tiling["overlap_t"]) == (16, 2)


def test_encoding_in_tiles_takes_pixels():
    vae = Vae()
    (latent,) = nodes.VAEEncodeTiled().encode(vae, torch.zeros(1, 16, 16, 3), 256, 32)
    assert vae.tiling == {"tile_x": 256, "tile_y": 256, "overlap": 32, "tile_t": 64, "overlap_t": 8}
    assert latent["samples"].shape == (1, 3, 2, 2)


def picture_and_mask():
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:16, 8:16] = 1
    return torch.full((1, 32, 32, 3), 0.9), mask


def test_inpainting_greys_the_hole_and_grows_the_mask():
    pixels, mask = picture_and_mask()
    vae = Vae()
    (latent,) = nodes.VAEEncodeForInpaint().encode(vae, pixels, mask, grow_mask_by=4)
    assert (vae.encoded[0][0, 8:16, 8:16] == 0.5).all()
    assert torch.allclose(vae.encoded[0][0, :8], torch.tensor(0.9))
    grown = latent["noise_mask"][0, 0]
    assert grown[:, 12].nonzero().flatten().tolist() == list(range(7, 18))
    assert torch.equal(nodes.VAEEncodeForInpaint().encode(Vae(), pixels, mask, 0)[0]["noise_mask"][0], mask)
    assert (pixels == 0.9).all()


def test_sides_that_the_grid_does_not_divide_are_cropped_in_the_middle():
    vae = Vae()
    pixels = torch.arange(36.0).view(1, 36, 1, 1).expand(1, 36, 32, 3) / 100
    (latent,) = nodes.VAEEncodeForInpaint().encode(vae, pixels, torch.zeros(1, 36, 32), 0)
    assert vae.encoded[0].shape == (1, 32, 32, 3)
    assert vae.encoded[0][0, 0, 0, 0].item() == pytest.approx(0.02)
    assert latent["noise_mask"].shape == (1, 1, 32, 32)


@pytest.mark.parametrize("limits_sampler", [True, False])
def test_inpainting_models_get_picture_and_mask(limits_sampler):
    pixels, mask = picture_and_mask()
    side = [[torch.zeros(1, 1, 1), {}]]
    positive, negative, latent = nodes.InpaintModelConditioning().encode(side, side, pixels, Vae(), mask, limits_sampler)
    for conditioning in (positive, negative):
        assert conditioning[0][1]["concat_latent_image"][0, 0, 1, 1] == 0.5
        assert conditioning[0][1]["concat_mask"].shape == (1, 1, 32, 32)
    assert torch.allclose(latent["samples"], torch.tensor(0.9))
    assert ("noise_mask" in latent) == limits_sampler
