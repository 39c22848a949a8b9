"""Stable Audio 3 gives upstream's latents and sounds: same files, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_stable_audio3_against_upstream.py
"""

import pytest
import torch
from both_trees import against_upstream, results_of_both
from stable_audio3_files import DEPTHS, LATENT, stable_audio3_file, stable_audio3_vae_tensors

BOUND = 1e-3
QUIET = 1e-3  # 60 dB below the sound
VAE = "comfy.ldm.audio.vae_sa3:SA3AudioVAE"

pytestmark = against_upstream(900)


class Numbers:
    """Random tensors, one after the other."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator)


def both(folder, cases) -> tuple:
    """What both trees make of *cases*."""
    torch.save(cases, folder / "cases.pt")
    return results_of_both("sound_model_runs.py", folder, [folder / "cases.pt"])


def latents(folder) -> dict:
    """Two lengths, with and without words about them, a sound that is known in part, a network with plain attention, a long text."""
    numbers, files = Numbers(), {}

    def case(options=None, batch=1, places=12, tokens=7, kind="wide", **more):
        sizes = {"wide": {"width": 768, "inner": 768}, "narrow": {}, "plain": {"differential": False, "memory": 5}}[kind]
        files.setdefault(kind, stable_audio3_file(folder / f"{kind}.safetensors", text=768, **sizes))
        sides = {side: [[numbers(1, tokens, 768), {"pooled_output": None, **(options or {})}]] for side in ("positive", "negative")}
        empty = {"noise": numbers(batch, LATENT, places), "latent": torch.zeros(batch, LATENT, places)}
        return {"model": files[kind], "checkpoint": True, **sides, **empty, "cfg": 3.0, **more}

    mask = torch.zeros(1, 1, 12)
    mask[..., 5:] = 1.0
    return {
        "plain": case(),
        "lcm": case(sampler="lcm", steps=3, cfg=1.0),
        "times": case({"seconds_start": 3.5, "seconds_total": 11.0}),
        "several": case({"seconds_total": 600.0}, batch=2, places=25),
        "a known beginning": case({"concat_latent_image": numbers(1, LATENT, 12), "concat_mask": mask}),
        "several, one known": case({"concat_latent_image": numbers(1, LATENT, 25), "concat_mask": mask.repeat(1, 1, 3)[..., :25]}, 2, 25),
        "narrow": case(kind="narrow"),
        "without differences": case(kind="plain", tokens=300),
    }


def test_latents_are_upstreams(tmp_path):
    ours, theirs = both(tmp_path, latents(tmp_path))
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:28} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    first, *others = ours
    assert not [name for name in others if ours[name].shape == ours[first].shape and torch.equal(ours[name], ours[first])]


@pytest.mark.parametrize("kind", DEPTHS)
def test_sounds_are_upstreams(tmp_path, kind):
    numbers = Numbers()
    sounds = [0.2 * numbers(1, 70000, 2), 0.2 * numbers(2, 8192, 2)]
    found = [numbers(1, LATENT, 21), numbers(2, LATENT, 6), numbers(1, LATENT, 1)]
    case = {"vae": stable_audio3_vae_tensors(kind), "sounds": sounds, "latents": found, "sizes": {VAE: {"channels": 32}}}
    ours, theirs = (results["vae"] for results in both(tmp_path, {"vae": case}))
    for number, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        difference = ((own - other).norm() / other.norm()).item()
        print(f"{kind} {number} {tuple(own.shape)} {difference:.1e}")
        assert own.shape == other.shape and difference <= QUIET and other.std() > 0.01
