"""BiRefNet, and SDPose's points, against ComfyUI 0.33: values before the sigmoid within 10⁻³, drawings but for edges."""

import dataclasses

import pytest
import torch
from birefnet_files import SMALL, birefnet_tensors
from both_trees import against_upstream, results_of_both

from comfy.ldm.modules.sdpose import HeatmapHead
from comfy_extras.pose_values import person_of

pytestmark = against_upstream(1800)
SIZES = dataclasses.replace(SMALL, inner=64, around=256, edge=16)  # ComfyUI has these alone
POINTS = 7


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outlines")
    generator = torch.Generator().manual_seed(4)
    head = HeatmapHead(8, POINTS)
    for value in head.parameters():
        torch.nn.init.normal_(value, std=0.3, generator=generator)
    places = torch.rand(133, 2, generator=generator) * torch.tensor([150.0, 100.0])
    people = [person_of((places + shift).numpy(), torch.rand(133, generator=generator).numpy()) for shift in (2, 20)]
    weights = {name: value for name, value in birefnet_tensors(seed=2, sizes=SIZES).items() if "spvn" not in name and "pred" not in name}
    cases = {
        "birefnet": weights,
        "pictures": torch.rand(1, 3, 128, 128, generator=generator),
        "head": head.state_dict(),
        "features": torch.randn(1, 8, 128, 96, generator=generator),
        "frames": [{"canvas_width": 180, "canvas_height": 130, "people": people}],
    }
    torch.save(cases, folder / "cases.pt")
    return results_of_both("outlines/outline_runs.py", folder, [folder / "cases.pt"])


def test_birefnets_masks_are_comfyuis(both):
    ours, theirs = (results["birefnet"] for results in both)
    assert ours.shape == theirs.shape == (1, 1, 128, 128) and theirs.std() > 0
    assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-3


def test_points_are_where_comfyui_finds_them(both):
    ours, theirs = both
    assert torch.allclose(ours["scores"], theirs["scores"], rtol=1e-4)
    assert (ours["places"] - theirs["places"]).abs().max() < 0.1  # of pixels


def test_people_are_drawn_as_comfyui_does_but_for_edges(both):
    ours, theirs = both
    assert ours["drawn"].shape == theirs["drawn"].shape
    different, picture = (ours["drawn"] != theirs["drawn"]).any(dim=-1), theirs["drawn"].movedim(-1, 1)
    around = [torch.nn.functional.max_pool2d(sign * picture, 5, 1, 2) * sign for sign in (1, -1)]
    far_from_edges = (around[0] == around[1]).all(dim=1)
    assert far_from_edges.float().mean() > 0.2 and different[far_from_edges].float().mean() < 0.01
    assert ours["faces"] == theirs["faces"]
