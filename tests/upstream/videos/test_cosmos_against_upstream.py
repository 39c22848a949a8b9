"""Cosmos 1 gives upstream's latents and videos: same tensors, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/videos/test_cosmos_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from cosmos_files import WIDE, cosmos_vae_tensors, first_cosmos_config, first_cosmos_tensors
from image_family_files import numbers

BOUND = 1e-3
CONTEXT, CELLS = 32, (3, 4, 6)  # frames, rows, columns of the latent
MOST = 120  # positions along each axis that ComfyUI's files have

pytestmark = against_upstream(900)


def case(channels=16, ratios=None, values=None, size=CELLS, **more):
    """A case of ``sampled`` in ``small_model_runs.py``, with two texts, and *values* of both conditionings."""
    made = {"channels": channels, "side": MOST}
    told = dict(values or {})
    return {
        "run": "sampled",
        "family": "CosmosT2V" if channels == 16 else "CosmosI2V",
        "unet_config": {**first_cosmos_config(**made), **(ratios or {})},
        "tensors": first_cosmos_tensors(**made),
        "positive": [(numbers(1, 7, CONTEXT, seed=1), dict(told))],
        "negative": [(numbers(1, 7, CONTEXT, seed=2), dict(told))],
        "latent": torch.zeros(1, 16, *size),
        "noise": numbers(1, 16, *size, seed=3),
        **more,
    }


def latent_cases():
    """Text, its mask and frames per second, given frames at either end, LoRA, with positions of 7 and of 14 billion weights."""
    begun = torch.ones(1, 1, *CELLS)
    begun[:, :, 0] = 0.0
    ended = begun.flip(2)
    masked = {"attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]])}
    layer = "diffusion_model.blocks.block1.blocks.2.block.layer2"
    lora = {f"{layer}.lora_A.weight": numbers(4, 1024, seed=8) / 32, f"{layer}.lora_B.weight": numbers(256, 4, seed=9) / 2}
    given = {"latent": numbers(1, 16, *CELLS, seed=4)}
    return {
        "text, 7B": case(),
        "text, 14B": case(ratios=WIDE),
        "text, 7B, LoRA": case(lora=lora),
        "frames per second": case(values={"frame_rate": 12}),
        "masked text": case(values=masked),
        "a picture's latent": case(size=(1, 8, 6)),
        "first frame, 7B": case(17, noise_mask=begun, **given),
        "last frame, 14B": case(17, WIDE, noise_mask=ended, **given),
        "no frame given": case(17),
    }


def test_latents_of_cosmos_1_are_upstreams(tmp_path):
    torch.save(latent_cases(), tmp_path / "cases.pt")
    ours, theirs = results_of_both("small_model_runs.py", tmp_path, [tmp_path / "cases.pt"])
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:20} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    plain = ours["text, 7B"]
    others = {name: latent for name, latent in ours.items() if latent.shape == plain.shape and name not in ("text, 7B", "masked text")}
    assert len(others) == 6 and not any(torch.allclose(latent, plain, rtol=0.01) for latent in others.values())


def test_videos_and_their_latents_are_upstreams(tmp_path):
    videos = [numbers(frames, 48, 64, 3, seed=frames).sigmoid() for frames in (1, 9, 12, 17)]
    latents = [numbers(1, 16, 5, 6, 8, seed=1), numbers(1, 16, 1, 3, 4, seed=2), numbers(1, 16, 18, 3, 4, seed=3)]
    torch.save({"vae": {"vae": cosmos_vae_tensors(), "pictures": videos, "latents": latents}}, tmp_path / "cases.pt")
    ours, theirs = (results["vae"] for results in results_of_both("videos/video_model_runs.py", tmp_path, [tmp_path / "cases.pt"]))
    for own, other in zip(ours[:4], theirs[:4], strict=True):
        print(f"latent {tuple(own.shape)}: {((own - other).norm() / other.norm()).item():.1e}")
        assert own.shape == other.shape and (own - other).norm() <= BOUND * other.norm()
    for own, other in zip(ours[4:], theirs[4:], strict=True):
        print(f"video {tuple(own.shape)}: {((own - other).norm() / other.norm()).item():.1e}")
        assert own.shape == other.shape and (own - other).norm() <= BOUND * other.norm() and own.std() > 0.05
