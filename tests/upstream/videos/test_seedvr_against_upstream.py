"""SeedVR2 gives upstream's latents, videos and colours: same files, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/videos/test_seedvr_against_upstream.py
"""

import pathlib
import sys

import torch

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]

from both_trees import against_upstream, results_of_both  # noqa: E402
from seedvr_files import KINDS, WIDTHS, seedvr_config, seedvr_file, seedvr_vae_tensors  # noqa: E402

BOUND = 1e-3

pytestmark = against_upstream(900)
NUMBERS = torch.Generator().manual_seed(7)


def numbers(*shape):
    return torch.randn(shape, generator=NUMBERS)


def compared(folder, cases) -> None:
    """Hold what this tree makes of *cases* against what the other one does."""
    torch.save(cases, folder / "cases.pt")
    ours, theirs = results_of_both("videos/seedvr_runs.py", folder, [folder / "cases.pt"])
    wrong = []
    for name, expected in theirs.items():
        assert [one.shape for one in ours[name]] == [one.shape for one in expected], name
        differences = [((own - one).norm() / one.norm().clamp(min=1e-9)).item() for own, one in zip(ours[name], expected, strict=True)]
        print(f"{name:28} {max(differences):.1e}")
        wrong += [(name, differences)] if not max(differences) <= BOUND else []
    assert not wrong


def known(kind) -> dict:
    """What ComfyUI is told of a network."""
    config = seedvr_config(kind)
    return {name: value for name, value in config.items() if name != "dtype"}


def test_latents_are_upstreams(tmp_path):
    cases = {}
    for kind in KINDS:
        told = {"file": seedvr_file(tmp_path / f"{kind}.safetensors", kind), "config": known(kind), "larger": kind != "3b", "steps": 1}
        cases[kind] = {**told, "cfg": 1.0, "latent": numbers(1, 16, 3, 14, 20), "noise": numbers(1, 16, 3, 14, 20)}
        cases[f"{kind}, long"] = {**told, "cfg": 1.0, "latent": numbers(1, 16, 9, 8, 30), "noise": numbers(1, 16, 9, 8, 30)}
        large = {"latent": numbers(1, 16, 2, 64, 90), "noise": numbers(1, 16, 2, 64, 90)}  # of several windows side by side
        cases[f"{kind}, large"] = {**told, "cfg": 1.0, **large}
    picture = {"latent": numbers(2, 16, 1, 40, 6), "noise": numbers(2, 16, 1, 40, 6)}
    cases["two pictures, guided"] = {**cases["3b"], **picture, "steps": 2, "cfg": 3.0}
    compared(tmp_path, cases)


def test_videos_are_upstreams(tmp_path):
    pictures = [torch.rand(13, 48, 64, 3, generator=NUMBERS), torch.rand(1, 32, 32, 3, generator=NUMBERS)]
    pictures += [torch.rand(2, 5, 32, 48, 3, generator=NUMBERS), torch.rand(9, 32, 48, 3, generator=NUMBERS)]
    latents = [numbers(1, 16, 4, 6, 8), numbers(1, 16, 1, 4, 4), numbers(2, 16, 2, 4, 6)]
    compared(tmp_path, {"vae": {"vae": seedvr_vae_tensors(), "widths": WIDTHS, "pictures": pictures, "latents": latents}})


def test_nodes_are_upstreams(tmp_path):
    small, seen = torch.rand(3, 35, 50, 3, generator=NUMBERS), torch.rand(6, 35, 51, 4, generator=NUMBERS)
    made = torch.rand(1, 9, 48, 64, 3, generator=NUMBERS)
    video = {"samples": numbers(1, 16, 12, 4, 6)}
    chunks = [{"samples": numbers(1, 16, count, 4, 6)} for count in (5, 5, 2)]
    cases = {
        "fill up": ("SeedVR2Preprocess", {"resized_images": small}),
        "fill up, transparent": ("SeedVR2Preprocess", {"resized_images": seen[None].repeat(2, 1, 1, 1, 1)}),
        "cut": ("SeedVR2TemporalChunk", manual(video, 17, 2)),
        "cut, no seams": ("SeedVR2TemporalChunk", manual(video, 21, 0)),
        "cut, short": ("SeedVR2TemporalChunk", manual(video, 5, 9)),
        "whole": ("SeedVR2TemporalChunk", manual(video, 81, 2)),
        "merge": ("SeedVR2TemporalMerge", {"latents": chunks, "temporal_overlap": [2]}),
        "merge, wide": ("SeedVR2TemporalMerge", {"latents": [*chunks[:2], {"samples": numbers(1, 16, 4, 4, 6)}], "temporal_overlap": [9]}),
        "merge, no seams": ("SeedVR2TemporalMerge", {"latents": chunks, "temporal_overlap": [0]}),
        "merge, one": ("SeedVR2TemporalMerge", {"latents": chunks[:1], "temporal_overlap": [3]}),
    }
    for method in ("lab", "wavelet", "adain", "none"):
        given = {"images": made, "original_resized_images": seen, "color_correction_method": method}
        cases[method] = ("SeedVR2PostProcessing", given)
        cases[f"{method}, frames"] = ("SeedVR2PostProcessing", {**given, "images": made[0], "original_resized_images": small})
        larger = torch.rand(1, 60, 70, 3, generator=NUMBERS)
        cases[f"{method}, larger"] = ("SeedVR2PostProcessing", {**given, "images": made[0, :1], "original_resized_images": larger})
    compared(tmp_path, {name: {"node": node, "given": given} for name, (node, given) in cases.items()})


def manual(latent, frames, overlap) -> dict:
    """Arguments for parts of *frames*."""
    return {"latent": latent, "temporal_overlap": overlap, "chunking_mode": {"chunking_mode": "manual", "frames_per_chunk": frames}}
