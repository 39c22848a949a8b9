"""Stable Video Diffusion gives upstream's latents and pictures: same weights, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/videos/test_svd_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from svd_files import SEEN, SMALL, frames_vae_tensors, unet_tensors

BOUND, LEVEL = 1e-3, 1 / 255
FRAMES = 3

pytestmark = against_upstream(900)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cases() -> dict:
    """A picture with and without what is told of the video, and another guidance."""
    told = {"motion_bucket_id": 30, "fps": 9, "augmentation_level": 0.1, "concat_latent_image": numbers(1, 4, 6, 8, seed=5)}
    shared = {"run": "sampled", "family": "SVD_img2vid", "unet_config": SMALL.as_dict(), "tensors": unet_tensors()}
    shared |= {"latent": torch.zeros(FRAMES, 4, 6, 8), "noise": numbers(FRAMES, 4, 6, 8, seed=1)}

    def case(values, **more):
        sides = {side: [[numbers(1, 1, SEEN, seed=seed), dict(values)]] for side, seed in (("positive", 2), ("negative", 3))}
        return {**shared, **sides, **more}

    return {"told": case(told), "not told": case({}), "weakly guided": case(told, cfg=1.0)}


def test_latents_are_upstreams(tmp_path):
    torch.save(cases(), tmp_path / "cases.pt")
    ours, theirs = results_of_both("small_model_runs.py", tmp_path, [tmp_path / "cases.pt"])
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:28} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    assert not torch.allclose(ours["told"], ours["not told"], rtol=1e-2)


def test_pictures_and_their_latents_are_upstreams(tmp_path):
    pictures = [numbers(2, 32, 48, 3, seed=2).sigmoid()]
    latents = [numbers(FRAMES, 4, 6, 8, seed=3), numbers(1, 4, 4, 6, seed=4)]
    case = {"vae": frames_vae_tensors(), "pictures": pictures, "latents": latents, "overlap": 1}
    torch.save({"vae": case}, tmp_path / "cases.pt")
    ours, theirs = (results["vae"] for results in results_of_both("video_model_runs.py", tmp_path, [tmp_path / "cases.pt"]))
    assert ours[0].shape == theirs[0].shape and (ours[0] - theirs[0]).norm() <= BOUND * theirs[0].norm()
    for own, other in zip(ours[1:], theirs[1:], strict=True):
        assert own.shape == other.shape and (own - other).abs().max() <= LEVEL and own.std() > 0.05
