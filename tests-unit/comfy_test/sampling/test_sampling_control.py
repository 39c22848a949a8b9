import re
from types import SimpleNamespace

import pytest
import torch
from control_files import HEADS, diffusers_names, published_names, reference
from safetensors.torch import save_file
from sampling_runs import loaded, run
from sampling_toys import DiscreteEps

import comfy.controlnet
from comfy.cli_args import args
from comfy.control.weights import build_control_network, kept_dtype
from comfy.families.model_errors import IncompleteModelError, ModelFileError, UnknownModelError
from comfy.families.weight_source import StateDictSource
from comfy.loading.components import kept_bytes


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(args, "cpu", True)


def given(batch=2, vector=False):
    generator = torch.Generator().manual_seed(5)
    inputs = {
        "x": torch.randn(batch, 4, 8, 8, generator=generator),
        "hint": torch.rand(batch, 3, 64, 64, generator=generator),
        "timesteps": torch.full((batch,), 500.0),
        "context": torch.randn(batch, 7, 48, generator=generator),
    }
    return inputs | ({"y": torch.randn(batch, 96, generator=generator)} if vector else {})


def build(tensors, **options):
    source = StateDictSource(tensors, "small.safetensors", HEADS)
    return comfy.controlnet.build_control_network(source, **options)


@pytest.mark.parametrize("make", [published_names, diffusers_names])
def test_residuals_are_those_of_diffusers_own_network(make):
    inputs = given()
    residuals = build(make())(**inputs)
    down, middle = reference()(inputs["x"], inputs["timesteps"], inputs["context"], inputs["hint"], return_dict=False)
    assert torch.allclose(residuals["middle"][0], middle, atol=1e-5)
    assert len(residuals["output"]) == len(down)
    assert all(torch.allclose(own, other, atol=1e-5) for own, other in zip(residuals["output"], down))


@pytest.mark.parametrize("make", [published_names, diffusers_names])
def test_sdxl_networks_use_the_vector_conditioning(make):
    inputs = given(vector=True)
    network = build(make(True))
    with_vector = network(**inputs)["middle"][0]
    embedded = reference(True).add_embedding(inputs["y"])
    assert torch.allclose(network.label_emb(inputs["y"]), embedded, atol=1e-5)
    assert not torch.allclose(with_vector, network(**{**inputs, "y": inputs["y"] * 2})["middle"][0], atol=1e-4)
    with pytest.raises(ValueError, match="made for SDXL"):
        network(**{name: value for name, value in inputs.items() if name != "y"})


def test_other_files_are_refused_by_name():
    with pytest.raises(UnknownModelError, match=r"small\.safetensors is not a ControlNet.*some\.tensor"):
        build({"some.tensor": torch.zeros(2)})
    with pytest.raises(UnknownModelError, match="control LoRA"):
        build({"lora_controlnet": torch.zeros(1)})
    tensors = published_names()
    del tensors["control_model.middle_block_out.0.weight"]
    with pytest.raises(IncompleteModelError, match="middle_block_out"):
        build(tensors)


@pytest.mark.parametrize("make", [published_names, diffusers_names])
@pytest.mark.parametrize("vector", [False, True])
def test_any_missing_or_reshaped_tensor_is_an_error_of_the_file(make, vector):
    whole = make(vector)
    # Blocks of one kind differ in their numbers only.
    kinds = {re.sub(r"\d+", "N", key, count=1): key for key in whole}
    for key in kinds.values():
        for damaged in (None, torch.zeros(3), torch.zeros(())):
            tensors = {name: tensor for name, tensor in whole.items() if name != key} | ({} if damaged is None else {key: damaged})
            with pytest.raises(ModelFileError, match=r"small\.safetensors"):
                build(tensors)


def test_a_difference_needs_the_model_it_belongs_to():
    tensors = published_names() | {"difference": torch.zeros(1)}
    with pytest.raises(UnknownModelError, match="load it with the node that takes one"):
        build(tensors)


def test_a_difference_is_added_to_the_models_weights(monkeypatch):
    key = "control_model.input_blocks.0.0.weight"
    base = torch.ones(32, 4, 3, 3)
    model = SimpleNamespace(model_state_dict=lambda: {"diffusion_model.input_blocks.0.0.weight": base})
    monkeypatch.setattr("comfy.model_management.load_models_gpu", lambda models: None)
    network = build(published_names() | {"difference": torch.zeros(1)}, model=model)
    assert torch.allclose(network.input_blocks[0][0].weight, published_names()[key] + 1)


def control(strength=1.0, share=(0.0, 1.0), network=None):
    network = build(published_names()) if network is None else network
    made = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
    made.set_cond_hint(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)), strength, share)
    return made


def ask(chain, sigma=3.0, batch=2, batched=2):
    sampling = DiscreteEps()
    chain.pre_run(SimpleNamespace(model_sampling=sampling), sampling.percent_to_sigma)
    inputs = given(batch)
    with torch.inference_mode():
        return chain.get_control(inputs["x"], torch.full((batch,), sigma), {"c_crossattn": inputs["context"]}, batched, {})


def test_strength_scales_the_residuals():
    plain, half = ask(control()), ask(control(0.5))
    assert torch.allclose(half["output"][2], plain["output"][2] * 0.5)
    assert torch.allclose(half["middle"][0], plain["middle"][0] * 0.5)


def test_linear_strength_is_weaker_on_early_residuals():
    network = control()
    network.strength, network.strength_type = 0.5, comfy.controlnet.StrengthType.LINEAR_UP
    plain, linear = ask(control()), ask(network)
    for number, (own, full) in enumerate(zip(linear["output"], plain["output"])):
        assert torch.allclose(own, full * 0.5 ** (len(plain["output"]) - number))


def test_pooled_residuals_are_constant_over_the_picture():
    network = control()
    network.global_average_pooling = True
    assert ask(network)["output"][0].std(dim=(2, 3)).max() < 1e-6


def test_a_control_acts_in_its_range_of_the_sampling():
    network = build(published_names())
    assert ask(control(share=(0.0, 0.2), network=network), sigma=0.1) is None
    assert ask(control(share=(0.0, 0.2), network=network), sigma=14.0) is not None


def test_chained_controls_are_added_and_a_silent_one_passes_the_others_on():
    network = build(published_names())
    first, second = control(0.3, network=network), control(0.6, network=network)
    single, chain = ask(control(0.9, network=network)), ask(second.set_previous_controlnet(first))
    assert torch.allclose(chain["output"][1], single["output"][1], atol=1e-6)
    silent = control(share=(0.9, 1.0), network=network).set_previous_controlnet(control(0.9, network=network))
    assert torch.allclose(ask(silent)["output"][1], single["output"][1])
    assert len(second.get_models()) == 2


def test_a_copy_shares_the_network_and_not_the_chain():
    network = control(0.3)
    network.set_previous_controlnet(control())
    network.set_extra_arg("name", 1)
    twin = network.copy()
    assert twin.control_model is network.control_model
    assert twin.previous_controlnet is None
    assert twin.strength == 0.3
    twin.set_extra_arg("name", 2)
    assert network.extra_args == {"name": 1}


def test_cleanup_drops_what_belongs_to_one_sampling():
    network = control()
    ask(network)
    assert network.cond_hint is not None
    network.cleanup()
    assert network.cond_hint is None
    assert network.timestep_range is None


@pytest.mark.parametrize(
    ("hints", "batch", "batched", "rows"),
    [(1, 4, 2, [0]), (2, 4, 2, [0, 1, 0, 1]), (3, 4, 2, [0, 1, 0, 1]), (2, 6, 2, [0, 1, 0, 0, 1, 0]), (4, 4, 1, [0, 1, 2, 3])],
)
def test_hints_are_laid_out_per_conditioning(hints, batch, batched, rows):
    out = comfy.controlnet.broadcast_image_to(torch.arange(hints).view(-1, 1, 1, 1), batch, batched)
    assert out.flatten().tolist() == rows


def test_shuffle_files_are_pooled(tmp_path):
    for name in ("canny", "net_shuffle"):
        save_file(published_names(), tmp_path / f"{name}.safetensors", metadata=HEADS)
    assert comfy.controlnet.load_controlnet(str(tmp_path / "net_shuffle.safetensors")).global_average_pooling
    assert not comfy.controlnet.load_controlnet(str(tmp_path / "canny.safetensors")).global_average_pooling


@pytest.mark.parametrize("named", [published_names, diffusers_names])
def test_the_room_asked_for_is_what_a_file_takes_in_the_dtype_it_is_kept_in(named):
    source = StateDictSource({name: tensor.half() for name, tensor in named().items()}, "a ControlNet", HEADS)
    estimated_bytes = kept_bytes(source, "", kept_dtype(source, {}))
    network = build_control_network(source)
    assert estimated_bytes == sum(parameter.nbytes for parameter in network.parameters())


class RandomControl(comfy.controlnet.ControlBase):
    """Adds the same random residuals to a network at every call."""

    def __init__(self, unet):
        super().__init__()
        self.widths = [block[0].out_channels for block in unet.input_blocks]

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        generator = torch.Generator().manual_seed(0)
        sides = [8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1]
        return {
            "input": [],
            "middle": [],
            "output": [torch.randn(len(x_noisy), width, side, side, generator=generator) for width, side in zip(self.widths, sides)],
        }


def test_a_control_changes_a_sampling_of_a_real_network():
    patcher, positive, negative = loaded()
    uncontrolled = run()
    control_net = RandomControl(patcher.model.diffusion_model)
    sides = [[[context, {**options, "control": control_net}] for context, options in side] for side in (positive, negative)]
    assert not torch.allclose(run(sides=sides), uncontrolled, rtol=1e-2)
    assert torch.equal(run(), uncontrolled)
