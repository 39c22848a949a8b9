"""SCAIL and SCAIL-2: files, networks, what samplers give them, and what windows cut."""

import pytest
import torch
from transformer_files import network_of
from wan_files import wan_config, wan_tensors

import comfy.sd
from comfy.dit.models.wan_scail import WAN21_SCAIL, WAN21_SCAIL2
from comfy.ldm.wan.model_scail import SCAIL2WanModel, SCAILWanModel
from comfy.windows.window import IndexListContextWindow

CONTEXT = 64


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(kind):
    network = network_of(wan_config(kind))
    network.load_weights(wan_tensors(kind))
    return network


def loaded(kind):
    return comfy.sd.load_diffusion_model_state_dict(wan_tensors(kind)).model


def moving(network, **given):
    """What *network* makes of three latent frames."""
    options = given.pop("options", {})
    x = numbers(1, 20, 3, 4, 6)
    with torch.inference_mode():
        return network(x, torch.tensor([300.0]), numbers(1, 5, CONTEXT, seed=1), transformer_options=options, **given)


@pytest.mark.parametrize(("kind", "network", "model"), [("scail", SCAILWanModel, WAN21_SCAIL), ("scail2", SCAIL2WanModel, WAN21_SCAIL2)])
def test_both_are_told_by_their_tensors(kind, network, model):
    found = loaded(kind)
    assert type(found) is model and type(found.diffusion_model) is network and found.model_sampling.shift == 8.0
    assert found.diffusion_model.patch_embedding_pose.weight.dtype == torch.float32


def test_pictures_and_poses_count_and_are_not_in_the_result():
    network = made("scail")
    picture, pose = numbers(1, 20, 1, 4, 6, seed=2), numbers(1, 20, 3, 2, 3, seed=3)
    results = [
        moving(network, **given)
        for given in ({}, {"reference_latent": picture}, {"pose_latents": pose}, {"reference_latent": picture, "pose_latents": pose})
    ]
    assert all(one.shape == (1, 16, 3, 4, 6) for one in results)
    assert not any(torch.allclose(one, other, atol=1e-4) for number, one in enumerate(results) for other in results[:number])


def test_patches_are_told_where_the_video_begins():
    told = []

    def patch(seen):
        told.append(seen["img_offset"])
        return seen

    picture = numbers(1, 20, 2, 4, 6, seed=2)
    moving(made("scail"), reference_latent=picture, options={"patches": {"double_block": [patch]}})
    assert told == [2 * 2 * 3] * 2


def test_masks_of_figures_and_replacing_them_count():
    network = made("scail2")
    given = {"reference_latent": numbers(1, 20, 1, 4, 6, seed=2), "pose_latents": numbers(1, 20, 3, 2, 3, seed=3)}
    masks = {"ref_mask_latents": numbers(1, 28, 4, 4, 6, seed=4), "sam_latents": numbers(1, 28, 3, 2, 3, seed=5)}
    whole = moving(network, **given, **masks, ref_mask_flag=True)
    torch.testing.assert_close(moving(network, **given, **masks), whole)
    others = [moving(network, **given, **{name: mask}) for name, mask in masks.items()]
    others += [moving(network, **given), moving(network, **given, **masks, ref_mask_flag=False)]
    assert not any(torch.allclose(one, whole, atol=1e-4) for one in others)


def given_to(model, **values):
    return model.extra_conds(noise=numbers(1, 16, 3, 4, 6), device="cpu", **values)


def test_the_first_picture_stands_next_to_the_video():
    model = loaded("scail2")
    pictures = [torch.full((1, 16, 1, 4, 6), value) for value in (1.0, 2.0, 3.0)]
    values = {"reference_latents": pictures, "pose_video_latent": numbers(1, 16, 3, 2, 3)}
    values |= {"driving_mask_28ch": numbers(1, 3, 28, 2, 3), "ref_mask_28ch": numbers(1, 6, 28, 4, 6), "ref_mask_flag": False}
    conds = given_to(model, **values)
    stacked = conds["reference_latent"].cond
    expected = [model.process_latent_in(pictures[number])[0, 0, 0, 0, 0] for number in (1, 2, 0)]
    assert stacked.shape == (1, 20, 3, 4, 6) and stacked[0, 0, :, 0, 0].tolist() == pytest.approx([float(one) for one in expected])
    assert stacked[:, 16:].eq(1).all() and conds["pose_latents"].cond.shape == (1, 20, 3, 2, 3)
    assert conds["sam_latents"].cond.shape == (1, 28, 3, 2, 3) and conds["ref_mask_flag"].cond is False
    shapes = model.extra_conds_shapes(**values)
    assert shapes == {
        "reference_latent": [1, 20, 72],
        "pose_latents": [1, 20, 3, 2, 3],
        "sam_latents": [1, 28, 3, 2, 3],
        "ref_mask_latents": [1, 28, 6, 4, 6],
    }
    noise = [1, 16, 3, 4, 6]
    counted = {name: [shape] for name, shape in shapes.items()}
    assert model.memory_required(noise, counted) > model.memory_required(noise)


def test_what_a_mask_keeps_is_given_as_it_is():
    model = loaded("scail2")
    noise, mask = numbers(1, 16, 3, 4, 6), torch.ones(1, 1, 3, 4, 6)
    mask[:, :, 0] = 0.0
    assert model.concat_cond(noise=noise, device="cpu", denoise_mask=mask)[0, :, :, 0, 0].tolist() == [[1.0, 0.0, 0.0]] * 4
    assert not model.concat_cond(noise=noise, device="cpu").any()
    assert model.scale_latent_inpaint(torch.ones(1), noise, mask) is mask


def test_windows_cut_poses_and_shorten_masks():
    model = loaded("scail2")
    conds = given_to(model, driving_mask_28ch=numbers(1, 9, 28, 2, 3), ref_mask_28ch=numbers(1, 10, 28, 4, 6))
    window, x = IndexListContextWindow([2, 3, 4], dim=2, total_frames=9), numbers(1, 16, 9, 4, 6)
    cut = {name: model.resize_cond_for_context_window(name, cond, window, x, "cpu") for name, cond in conds.items()}
    assert torch.equal(cut["sam_latents"].cond, conds["sam_latents"].cond[:, :, 2:5])
    assert torch.equal(cut["ref_mask_latents"].cond, conds["ref_mask_latents"].cond[:, :, :4])
    alone = given_to(model, ref_mask_28ch=numbers(1, 9, 28, 4, 6))["ref_mask_latents"]
    assert model.resize_cond_for_context_window("ref_mask_latents", alone, window, x, "cpu") is None
