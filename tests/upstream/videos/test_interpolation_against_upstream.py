"""Frames between others are upstream's: same files and frames.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/videos -k frames_are_upstreams
"""

import torch
from both_trees import against_upstream, results_of_both
from interpolation_files import FILM, interpolation_file

BOUND = 1e-3

pytestmark = against_upstream(300)


def interpolation_cases(folder) -> dict:
    """Both networks, files as they are published and as they are trained, several sides and numbers of frames."""
    chance = torch.Generator().manual_seed(7)

    def film(frames, height, width):
        spots = torch.rand((frames, 3, 6, 8), generator=chance)
        return torch.nn.functional.interpolate(spots, (height, width), mode="bilinear").movedim(1, -1)

    rife = {"model": interpolation_file(folder / "rife.safetensors", "rife")}
    trained = {"model": interpolation_file(folder / "trained.safetensors", "rife", seed=2, training=True)}
    half = {"model": interpolation_file(folder / "half.safetensors", "rife", dtype=torch.float16)}
    large = {"model": interpolation_file(folder / "film.safetensors", "film"), "sizes": FILM}
    return {
        "RIFE": {**rife, "images": film(3, 128, 192), "multiplier": 2},
        "RIFE, seven of each two, other sides": {**rife, "images": film(3, 100, 150), "multiplier": 8},
        "RIFE, one frame": {**rife, "images": film(1, 64, 64), "multiplier": 2},
        "RIFE as trained": {**trained, "images": film(4, 64, 128), "multiplier": 3},
        "RIFE in fp16": {**half, "images": film(2, 64, 128), "multiplier": 2},
        "FILM": {**large, "images": film(3, 128, 192), "multiplier": 2},
        "FILM, three of each two, odd sides": {**large, "images": film(3, 101, 75), "multiplier": 4},
    }


def test_frames_are_upstreams(tmp_path):
    cases = interpolation_cases(tmp_path)
    torch.save(cases, tmp_path / "cases.pt")
    ours, theirs = results_of_both("videos/interpolation_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert ours.keys() == theirs.keys() == cases.keys()
    differences = {name: ((ours[name] - frames).norm() / frames.norm()).item() for name, frames in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:40} {difference:.1e}")
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
    for name, case in cases.items():
        made = theirs[name]
        assert len(made) == (len(case["images"]) - 1) * case["multiplier"] + 1 and made.std() > 0.05
        assert len(made) == 1 or not torch.allclose(made[1], made[0], atol=1e-2)
