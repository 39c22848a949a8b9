"""SeedVR2: its files, windows, network and hooks, sampling."""

import itertools
import math

import pytest
import torch
from seedvr_files import KINDS, seedvr_config, seedvr_file, seedvr_tensors

import comfy.latent_formats
import comfy.lora
import comfy.model_base
import comfy.ops
import comfy.sample
import comfy.sd
import comfy.supported_models
from comfy.dit.models.seedvr import SeedVR2
from comfy.dit.registry import family_of
from comfy.dit.restoring import seedvr
from comfy.ldm.seedvr.layers import AdaSingle, MMModule, NaSwinAttention, Seen
from comfy.ldm.seedvr.windows import rotations, turns_after_text, turns_in_picture, window_size, windows_of

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=KINDS)
def patcher(request, tmp_path_factory):
    path = seedvr_file(tmp_path_factory.mktemp("seedvr") / "network.safetensors", request.param)
    return comfy.sd.load_diffusion_model(path, {"dtype": torch.float32}), request.param


@pytest.fixture
def network(patcher):
    return patcher[0].model.diffusion_model


def inputs():
    return {
        "x": numbers(1, 16, 3, 8, 12, seed=1),
        "timestep": torch.tensor([400.0]),
        "context": numbers(1, 6, 5120, seed=2),
        "condition": numbers(1, 17, 3, 8, 12, seed=3),
    }


def test_files_are_told_by_their_tensors(patcher):
    model, kind = patcher[0].model, patcher[1]
    assert type(model) is comfy.model_base.SeedVR2 is SeedVR2
    assert type(model.model_config) is comfy.supported_models.SeedVR2
    assert family_of(model.model_config.unet_config) is seedvr.FAMILY
    assert isinstance(model.latent_format, comfy.latent_formats.SeedVR2) and model.model_type is comfy.model_base.ModelType.FLOW
    count, own, gated, normed = KINDS[kind]
    config = model.model_config.unet_config
    assert (config["num_layers"], config["mm_layers"], config["mlp_type"] == "swiglu") == (count, own, gated)
    assert config["rope_type"] == ("mmrope3d" if normed else "rope3d") and config["heads"] == 2


def test_files_without_texts_are_none():
    shapes = {name: tuple(value.shape) for name, value in seedvr_tensors().items()}
    assert seedvr.read_config({name: shape for name, shape in shapes.items() if name != "negative_conditioning"}) is None


def test_half_weights_are_computed_in_bfloat16_where_the_device_can(monkeypatch):
    for can in (True, False):
        monkeypatch.setattr("comfy.model_management.should_use_bf16", lambda device=None, can=can: can)
        config = comfy.supported_models.SeedVR2(seedvr_config())
        config.set_inference_dtype(torch.float16, None)
        assert config.manual_cast_dtype == (torch.bfloat16 if can else None) and config.unet_config["dtype"] == torch.float16


@pytest.mark.parametrize(("size", "shifted"), list(itertools.product([(1, 5, 7), (9, 40, 60), (33, 45, 80), (2, 3, 200)], [False, True])))
def test_every_place_is_in_one_window(size, shifted):
    windows = windows_of(size, shifted, CPU)
    places = torch.cat([own.places.flatten() for own in windows])
    assert places.sort().values.tolist() == list(range(math.prod(size)))
    largest = window_size(size)
    for own in windows:
        assert own.places.shape[1] == math.prod(own.size) and all(one <= most for one, most in zip(own.size, largest))


def test_windows_are_a_third_of_a_side_and_begin_in_the_middle_of_others():
    assert window_size((30, 45, 80)) == (8, 15, 27) and window_size((100, 90, 160)) == (8, 15, 27)
    sizes = {own.size: len(own.places) for own in windows_of((8, 45, 81), False, CPU)}
    assert sizes == {(2, 15, 27): 4 * 3 * 3}
    shifted = {own.size: len(own.places) for own in windows_of((8, 45, 81), True, CPU)}
    assert shifted[2, 15, 27] == 3 * 2 * 2 and shifted[1, 7, 13] == shifted[1, 8, 14] == 2, "corners of the first and the last frame"


def test_frames_are_counted_on_from_the_text():
    places, tokens = turns_after_text((2, 3, 4), 5, 12, CPU)
    assert places.shape == (24, 6) and tokens.shape == (5, 6)
    frequencies = torch.tensor([1.0, 0.01])
    assert torch.allclose(places[-1], torch.cat((6 * frequencies, 2 * frequencies, 3 * frequencies)))
    assert torch.allclose(tokens[-1], (4 * frequencies).repeat(3))


def test_axes_of_a_window_go_from_minus_one_to_one():
    places = turns_in_picture((1, 3, 2), 12, CPU)
    frequencies = torch.tensor([1.0, 128.0]) * torch.pi
    assert torch.allclose(places[0], torch.cat((-frequencies,) * 3)) and torch.allclose(
        places[3], torch.cat((-frequencies, 0 * frequencies, frequencies))
    )
    turned = rotations(torch.tensor([torch.pi / 2])) @ torch.tensor([1.0, 0.0])
    assert torch.allclose(turned, torch.tensor([[0.0, 1.0]]), atol=1e-6)


def filled(module):
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(numbers(*parameter.shape, seed=number) * 0.1)
    return module


@pytest.mark.parametrize("shared", [False, True])
def test_each_window_sees_the_text_which_becomes_their_mean(shared):
    layer = filled(NaSwinAttention(32, 2, 8, 1e-5, shared, comfy.ops.disable_weight_init))
    vid, txt = numbers(2, 24, 32), numbers(2, 5, 32, seed=1)
    windows = windows_of((2, 3, 4), False, CPU)
    made, told = layer(vid, txt, Seen(windows, [(None, None)] * len(windows)), {})
    video, text = (part.unflatten(-1, (3, 2, 8)).unbind(2) for part in layer.proj_qkv(vid, txt))
    queries, keys = layer.norm_q(video[0], text[0]), layer.norm_k(video[1], text[1])
    expected, spoken = torch.zeros(2, 24, 16), []
    for places in (places for own in windows for places in own.places):
        query, key, value = (torch.cat((of[:, places], word), dim=1).transpose(1, 2) for of, word in (queries, keys, (video[2], text[2])))
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        expected[:, places] = out[:, : len(places)]
        spoken.append(out[:, len(places) :])
    assert len(spoken) == 2, "one for each frame"
    wanted = layer.proj_out(expected, torch.stack(spoken).mean(dim=0))
    assert torch.allclose(made, wanted[0], atol=1e-5) and torch.allclose(told, wanted[1], atol=1e-5)


def test_layers_for_both_kinds():
    vid, txt = numbers(1, 3, 4), numbers(1, 2, 4, seed=1)

    def layer():
        return torch.nn.Linear(4, 4)

    alone = MMModule(layer, False, vid_only=True)
    assert torch.equal(alone(vid, txt)[1], txt) and torch.equal(alone(vid, txt)[0], alone.vid(vid)) and alone.txt is None
    shared = MMModule(layer, True)
    assert torch.equal(shared(vid, vid)[1], shared.all(vid)) and not hasattr(shared, "vid")


def test_times_and_values_of_the_block_add_up():
    ada, tokens, times = filled(AdaSingle(4)), numbers(2, 3, 4), numbers(2, 1, 4, 3, seed=1)
    before = tokens * (times[..., 1] + ada.mlp_scale) + times[..., 0] + ada.mlp_shift
    assert torch.allclose(ada.before(tokens, "mlp", times), before, atol=1e-6)
    assert torch.allclose(ada.after(tokens, "attn", times), tokens * (times[..., 2] + ada.attn_gate), atol=1e-6)


def test_every_input_counts(network):
    plain = network(**inputs())
    assert plain.shape == (1, 16, 3, 8, 12)
    for name, value in inputs().items():
        changed = {**inputs(), name: value + 0.1 * numbers(*value.shape, seed=9) * (1000 if name == "timestep" else 1)}
        assert not torch.allclose(network(**changed), plain, atol=1e-4), name


def test_batches_are_as_one_by_one(network):
    both = {name: torch.cat((value, numbers(*value.shape, seed=8).abs())) for name, value in inputs().items()}
    together = network(**both)
    assert torch.allclose(together[:1], network(**inputs()), atol=1e-4)
    assert torch.allclose(together[1:], network(**{name: value[1:] for name, value in both.items()}), atol=1e-4)


def test_without_a_text_it_takes_the_files(network):
    alone, told = inputs(), inputs()
    alone["context"], told["context"] = None, network.positive_conditioning[None]
    assert torch.equal(network(**alone), network(**told))


def test_blocks_can_be_replaced(network):
    seen = []

    def replacement(given, extra):
        seen.append((given["vid"].shape, given["txt"].shape))
        return {"vid": extra["original_block"](given)["vid"] * 0, "txt": given["txt"]}

    options = {"patches_replace": {"dit": {("block", 3): replacement}}}
    replaced = network(**inputs(), transformer_options=options)
    assert seen == [((1, 72, 256), (1, 6, 256))] and ("block", 3) in list(network.patch_blocks())
    assert not torch.allclose(replaced, network(**inputs()))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"condition": None}, "SeedVR2Conditioning"),
        ({"x": numbers(1, 16, 3, 9, 12)}, "SeedVR2Preprocess"),
        ({"x": numbers(1, 4, 3, 8, 12)}, "B x 16"),
        ({"condition": numbers(1, 17, 2, 8, 12)}, "encode both alike"),
    ],
)
def test_latents_that_do_not_fit_are_refused(network, changed, said):
    with pytest.raises(ValueError, match=said):
        network(**{**inputs(), **changed})


def test_samplers_restore(patcher):
    condition = {"condition": numbers(1, 17, 1, 8, 8)}
    sides = {name: [[numbers(1, count, 5120, seed=count), dict(condition)]] for name, count in (("positive", 58), ("negative", 64))}
    empty = torch.zeros(1, 16, 1, 8, 8)
    settings = {"sampler_name": "euler", "scheduler": "simple", "disable_pbar": True, "seed": 1}
    made = comfy.sample.sample(patcher[0], numbers(1, 16, 1, 8, 8), 1, 2.0, latent_image=empty, **sides, **settings)
    assert made.shape == empty.shape and made.std() > 0.1
    sides["negative"][0][1]["condition"] = numbers(1, 17, 1, 8, 8, seed=5)
    other = comfy.sample.sample(patcher[0], numbers(1, 16, 1, 8, 8), 1, 2.0, latent_image=empty, **sides, **settings)
    assert not torch.allclose(made, other)


def test_loras_name_weights_as_files_do(patcher):
    layer = "blocks.0.attn.proj_qkv.vid"
    keys = comfy.lora.model_lora_keys_unet(patcher[0].model, {})
    for name in (f"diffusion_model.{layer}", f"lora_unet_{layer.replace('.', '_')}"):
        lora = {f"{name}.lora_up.weight": numbers(768, 2), f"{name}.lora_down.weight": numbers(2, 256)}
        assert list(comfy.lora.load_lora(lora, keys)) == [f"diffusion_model.{layer}.weight"], name
