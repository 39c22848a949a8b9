"""Conditioning for InstructPix2Pix: the picture's latent on both sides, and an empty latent of its size."""

from types import SimpleNamespace

import torch

from comfy_extras.nodes_ip2p import InstructPixToPixConditioning


def test_both_sides_get_the_picture_and_the_sampler_an_empty_latent():
    seen = []

    def encode(pixels):
        seen.append(pixels)
        return torch.full((len(pixels), 4, pixels.shape[1] // 8, pixels.shape[2] // 8), 2.0)

    pixels = torch.arange(2 * 19 * 28 * 3).view(2, 19, 28, 3).float()
    positive, negative = [["p", {"a": 1}]], [["n", {}], ["m", {}]]
    sides = InstructPixToPixConditioning.execute(positive, negative, pixels, SimpleNamespace(encode=encode))
    assert torch.equal(seen[0], pixels[:, 1:17, 2:26])
    latent = torch.full((2, 4, 2, 3), 2.0)
    assert [entry[0] for entry in (*sides[0], *sides[1])] == ["p", "n", "m"] and sides[0][0][1]["a"] == 1
    assert all(torch.equal(entry[1]["concat_latent_image"], latent) for entry in (*sides[0], *sides[1]))
    assert torch.equal(sides[2]["samples"], torch.zeros_like(latent)) and positive == [["p", {"a": 1}]]
