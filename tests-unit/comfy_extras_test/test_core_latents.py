"""Nodes for latents: sizes, batches, pasting, and files."""

import json

import pytest
import safetensors.torch
import torch

import folder_paths
from comfy_extras.core_latent_files import LoadLatent, SaveLatent
from comfy_extras.core_latents import (
    EmptyLatentImage,
    LatentBlend,
    LatentComposite,
    LatentCrop,
    LatentFlip,
    LatentFromBatch,
    LatentRotate,
    LatentUpscale,
    LatentUpscaleBy,
    RepeatLatentBatch,
    SetLatentNoiseMask,
)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for kind in ("input", "output"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def numbered(batch=3, height=8, width=8, **more):
    return {"samples": torch.arange(batch * 4 * height * width, dtype=torch.float32).reshape(batch, 4, height, width), **more}


def test_empty_latent_has_one_cell_for_eight_pixels():
    (latent,) = EmptyLatentImage().generate(520, 256, 2)
    assert latent["samples"].shape == (2, 4, 32, 65) and not latent["samples"].any()


@pytest.mark.parametrize("index, length, expected", [(1, 2, [1, 2]), (-1, 5, [2]), (9, 1, [2]), (-9, 1, [0])])
def test_taking_from_a_batch_keeps_noise_and_mask(index, length, expected):
    latent = numbered(noise_mask=torch.arange(3.0).reshape(3, 1, 1, 1), batch_index=[5, 6, 7])
    (taken,) = LatentFromBatch().frombatch(latent, index, length)
    assert torch.equal(taken["samples"], latent["samples"][expected])
    assert taken["batch_index"] == [5 + number for number in expected]
    assert taken["noise_mask"].flatten().tolist() == expected


def test_repeating_continues_the_indices_and_leaves_the_input_alone():
    latent = numbered(2, noise_mask=torch.zeros(2, 1, 8, 8), batch_index=[3, 4])
    (repeated,) = RepeatLatentBatch().repeat(latent, 3)
    assert repeated["samples"].shape[0] == repeated["noise_mask"].shape[0] == 6
    assert repeated["batch_index"] == [3, 4, 5, 6, 7, 8]
    assert latent["samples"].shape[0] == 2 and latent["batch_index"] == [3, 4]


def test_repeating_keeps_masks_that_are_fewer_than_the_latents_in_their_order():
    masks = torch.arange(2.0).reshape(2, 1, 1, 1)
    (repeated,) = RepeatLatentBatch().repeat(numbered(3, noise_mask=masks), 2)
    assert repeated["samples"].shape[0] == 6
    assert repeated["noise_mask"].flatten().tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("width, height, cells", [(128, 256, (32, 16)), (0, 128, (16, 32)), (256, 0, (16, 32)), (8, 8, (8, 8))])
def test_upscale_sizes(width, height, cells):
    (upscaled,) = LatentUpscale().upscale(numbered(1, 8, 16), "nearest-exact", width, height, "disabled")
    assert upscaled["samples"].shape[-2:] == cells


def test_upscale_to_nothing_changes_nothing_and_by_a_factor_rounds():
    latent = numbered(1)
    assert LatentUpscale().upscale(latent, "bislerp", 0, 0, "disabled")[0] is latent
    assert LatentUpscaleBy().upscale(latent, "bilinear", 1.3)[0]["samples"].shape[-2:] == (10, 10)


def test_rotation_is_clockwise_and_flips_are_along_their_axis():
    latent = {"samples": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)}
    assert LatentRotate().rotate(latent, "90 degrees")[0]["samples"].flatten().tolist() == [3, 1, 4, 2]
    assert LatentFlip().flip(latent, "x-axis: vertically")[0]["samples"].flatten().tolist() == [3, 4, 1, 2]
    assert LatentFlip().flip(latent, "y-axis: horizontally")[0]["samples"].flatten().tolist() == [2, 1, 4, 3]


def test_pasting_cuts_at_the_edge_and_leaves_the_target_latent_alone():
    target, source = {"samples": torch.zeros(1, 1, 4, 4)}, {"samples": torch.ones(1, 1, 3, 3)}
    (pasted,) = LatentComposite().composite(target, source, x=16, y=24)
    assert pasted["samples"][0, 0].nonzero().tolist() == [[3, 2], [3, 3]]
    assert not target["samples"].any()
    (outside,) = LatentComposite().composite(target, source, x=400, y=0)
    assert not outside["samples"].any()


def test_pasted_edges_are_soft_only_towards_the_target():
    target, source = {"samples": torch.zeros(1, 1, 1, 8)}, {"samples": torch.ones(1, 1, 1, 4)}
    (pasted,) = LatentComposite().composite(target, source, x=0, y=0, feather=16)
    assert pasted["samples"].flatten().tolist() == [1, 1, 1, 0.5, 0, 0, 0, 0]


@pytest.mark.parametrize("x, expected", [(0, [0.5, 0.375 * 0.875, 0.25 * 0.75, 0.125]), (32, [0.125, 0.25, 0.375, 0.5])])
def test_feather_wider_than_what_is_pasted_fades_as_in_comfyui(x, expected):
    target, source = {"samples": torch.zeros(1, 1, 1, 8)}, {"samples": torch.ones(1, 1, 1, 4)}
    (pasted,) = LatentComposite().composite(target, source, x=x, y=0, feather=64)
    assert pasted["samples"].flatten()[x // 8 : x // 8 + 4].tolist() == pytest.approx(expected)


def test_blend_and_crop():
    one, three = {"samples": torch.full((1, 4, 16, 16), 1.0)}, {"samples": torch.full((1, 4, 8, 8), 3.0)}
    assert LatentBlend().blend(one, three, 0.25)[0]["samples"].unique().tolist() == [2.5]
    with pytest.raises(ValueError, match="normal"):
        LatentBlend().blend(one, three, 0.5, "screen")
    assert LatentCrop().crop(numbered(1, 16, 16), 64, 512, 1000, 64)[0]["samples"].shape == (1, 4, 8, 8)


def test_noise_mask_gets_a_channel():
    assert SetLatentNoiseMask().set_mask(numbered(), torch.rand(8, 9))[0]["noise_mask"].shape == (1, 1, 8, 9)


def test_saved_latent_is_read_back_with_its_metadata(folders):
    latent = numbered()
    answer = SaveLatent().save(latent, "latents/x", {"1": {}}, {"workflow": [1]})
    entry = answer["ui"]["latents"][0]
    assert answer["result"] == (latent,) and entry == {"filename": "x_00001_.latent", "subfolder": "latents", "type": "output"}
    path = folders / "output" / "latents" / "x_00001_.latent"
    path.rename(folders / "input" / "a.latent")
    assert LoadLatent.INPUT_TYPES()["required"]["latent"] == [["a.latent"]]
    assert torch.equal(LoadLatent().load("a.latent")[0]["samples"], latent["samples"])
    with safetensors.safe_open(folders / "input" / "a.latent", "pt") as opened:
        header = opened.metadata()
    assert {key: json.loads(value) for key, value in header.items()} == {"prompt": {"1": {}}, "workflow": [1]}


def test_old_latent_files_are_scaled(folders):
    safetensors.torch.save_file({"latent_tensor": torch.tensor([0.18215])}, folders / "input" / "old.latent")
    assert LoadLatent().load("old.latent")[0]["samples"].tolist() == pytest.approx([1.0])


def test_file_without_latent_is_named(folders):
    safetensors.torch.save_file({"weight": torch.zeros(1)}, folders / "input" / "model.latent")
    with pytest.raises(ValueError, match=r"model\.latent holds no latent"):
        LoadLatent().load("model.latent")
    (folders / "input" / "junk.latent").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.latent"):
        LoadLatent().load("junk.latent")
    assert LoadLatent.VALIDATE_INPUTS("../a.latent").startswith("Invalid latent file")
    assert len(LoadLatent.IS_CHANGED("junk.latent")) == 64
