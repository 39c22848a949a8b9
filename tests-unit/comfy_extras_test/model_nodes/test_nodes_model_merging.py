"""Merging models and text encoders, saving them, and LoRAs of their differences."""

import importlib
from types import SimpleNamespace

import pytest
import safetensors
import safetensors.torch
import torch
from residency_models import Layers, management, patcher_of
from sampling_runs import loaded
from small_models import small_checkpoint

import comfy.model_management
import comfy.sd
import folder_paths
from comfy.cli_args import args
from comfy_extras import nodes_lora_debug, nodes_lora_extract, nodes_train
from comfy_extras import nodes_model_merging as merging


class Network(torch.nn.Module):
    """Layers where a diffusion model has them."""

    def __init__(self, seed):
        super().__init__()
        self.diffusion_model = Layers(seed=seed)
        self.current_patcher = None


@pytest.fixture
def models():
    with management():
        yield patcher_of(Network(1)), patcher_of(Network(2))


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    return tmp_path


def weights(patcher):
    """The patched values by name."""
    return patcher.model_state_dict_for_saving(prefix="diffusion_model.")


def mixed(own, other, first=1.0, second=1.0):
    return {name: first * own[name] + second * other[name] for name in own}


def equal(found, expected, tolerance=1e-5):
    return found.keys() == expected.keys() and all(torch.allclose(found[name], expected[name], atol=tolerance) for name in expected)


def test_models_are_mixed_added_and_subtracted(models):
    one, two = models
    own, other = weights(one), weights(two)
    assert equal(weights(merging.ModelMergeSimple().merge(one, two, 0.3)[0]), mixed(own, other, 0.3, 0.7))
    assert equal(weights(merging.ModelSubtract().merge(one, two, 2.0)[0]), mixed(own, other, 2.0, -2.0))
    assert equal(weights(merging.ModelAdd().merge(one, two)[0]), mixed(own, other))
    assert equal(weights(one), own) and equal(weights(two), other), "both stay as they were"


def test_merges_of_merges_are_computed_when_they_are_loaded(models):
    one, two = models
    own, other = weights(one), weights(two)
    (difference,) = merging.ModelSubtract().merge(two, one, 1.0)
    (back,) = merging.ModelAdd().merge(one, difference)
    comfy.model_management.load_models_gpu([back])
    assert equal(weights(back), other, 1e-4)
    assert torch.allclose(back.model.diffusion_model.first.weight, other["first.weight"], atol=1e-4)
    comfy.model_management.load_models_gpu([one])
    assert one.model.diffusion_model.first.weight.equal(own["first.weight"])


def test_the_longest_name_that_a_weight_begins_with_chooses_its_ratio(models):
    one, two = models
    own, other = weights(one), weights(two)
    found = weights(merging.ModelMergeBlocks().merge(one, two, s=0.5, first=0.0, **{"first.w": 0.25})[0])
    for name in own:
        ratio = 0.25 if name == "first.weight" else 0.0 if name.startswith("first") else 0.5
        assert torch.allclose(found[name], ratio * own[name] + (1 - ratio) * other[name], atol=1e-5), name


def test_equal_merges_keep_loaded_weights(models):
    one, two = models
    first, again, other = (merging.ModelMergeSimple().merge(one, two, ratio)[0] for ratio in (0.5, 0.5, 0.6))
    assert first.patches_uuid == again.patches_uuid != other.patches_uuid


def test_models_of_other_kinds_are_refused_and_partial_fits_told(models, caplog):
    one, two = models
    with pytest.raises(ValueError, match="different kinds.*diffusion_model.alien"):
        merging.merged(one, {"diffusion_model.alien": [None]}, lambda _: (1.0, 1.0))
    patches = two.get_key_patches("diffusion_model.")
    merging.merged(one, {**patches, "diffusion_model.alien": [None]}, lambda _: (0.5, 0.5))
    assert "1 of 10 weights" in caplog.text and "diffusion_model.alien" in caplog.text


@pytest.fixture(scope="module")
def encoders():
    args.cpu = True
    with torch.inference_mode():
        files = [small_checkpoint("sd15", seed) for seed in (0, 1)]
        return [comfy.sd.load_checkpoint_guess_config(file, output_vae=False, output_model=False)[1] for file in files]


def texts(clip):
    return {name: clip.patcher.patch_weight_to_device(name, return_weight=True).clone() for name in clip.patcher.model_state_dict()}


def test_text_encoders_are_merged_but_for_positions_and_scales(encoders):
    one, two = encoders
    own, other = texts(one), texts(two)
    name = next(name for name in own if name.endswith("token_embedding.weight"))
    for merged, first, second in (
        (merging.CLIPMergeSimple().merge(one, two, 0.3)[0], 0.3, 0.7),
        (merging.CLIPSubtract().merge(one, two, 2.0)[0], 2.0, -2.0),
        (merging.CLIPAdd().merge(one, two)[0], 1.0, 1.0),
    ):
        assert torch.allclose(texts(merged)[name], first * own[name] + second * other[name], atol=1e-5)
        assert not [key for key in merged.patcher.patches if key.endswith(merging.NO_WEIGHTS_OF_TEXT)]


def read(path):
    with safetensors.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no mapping


def test_a_saved_checkpoint_loads_with_the_merged_weights(output):
    files = [small_checkpoint("sd15", seed) for seed in (0, 1)]
    with torch.inference_mode():
        (one, clip, vae, _), (two, *_) = (comfy.sd.load_checkpoint_guess_config(file) for file in files)
        (merged,) = merging.ModelMergeSimple().merge(one, two, 0.25)
        node = merging.CheckpointSave()
        assert node.save(merged, clip, vae, "kept/mixed", {"1": {}}, {"workflow": {"nodes": []}}) == {}
    tensors, metadata = read(output / "kept" / "mixed_00001_.safetensors")
    (first, _), (second, _) = (read(file) for file in files)
    assert tensors.keys() >= {name for name in first if name.startswith("model.diffusion_model.")}
    name = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    assert torch.allclose(tensors[name], 0.25 * first[name] + 0.75 * second[name], atol=1e-6)
    vae_name = next(name for name in first if name.startswith("first_stage_model.decoder"))
    assert tensors[vae_name].equal(first[vae_name])
    assert metadata["prompt"] == '{"1": {}}' and metadata["workflow"] == '{"nodes": []}'
    assert metadata["modelspec.predict_key"] == "epsilon" and "modelspec.architecture" not in metadata


def test_parts_are_saved_on_their_own(output, monkeypatch):
    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint("sdxl"))
        merging.ModelSave().save(model, "diffusion_models/one")
        merging.CLIPSave().save(clip, "clip/one", {"1": {}})
        monkeypatch.setattr(args, "disable_metadata", True)
        merging.VAESave().save(vae, "vae/one", {"1": {}})
    tensors, metadata = read(output / "diffusion_models" / "one_00001_.safetensors")
    assert all(name.startswith("model.diffusion_model.") for name in tensors)
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base" and metadata["modelspec.title"] == "one 1"
    assert sorted(path.name for path in (output / "clip").iterdir()) == ["one_clip_g_00001_.safetensors", "one_clip_l_00001_.safetensors"]
    for part in ("clip_l", "clip_g"):
        tensors, metadata = read(output / "clip" / f"one_{part}_00001_.safetensors")
        own = {name.removeprefix(f"{part}."): value for name, value in texts(clip).items() if name.startswith(f"{part}.")}
        assert equal(tensors, {name.removeprefix("transformer."): value for name, value in own.items()}, 0.0)
        assert "text_model.embeddings.token_embedding.weight" in tensors and metadata == {"format": "pt", "prompt": '{"1": {}}'}
    tensors, metadata = read(output / "vae" / "one_00001_.safetensors")
    assert "decoder.conv_in.weight" in tensors and metadata == {}


def test_predictions_of_velocity_are_marked(models):
    import comfy.model_base
    import comfy.model_sampling

    def marks(sampling, kind):
        model = SimpleNamespace(get_model_object=lambda name: sampling, model=SimpleNamespace(model_type=kind))
        return merging._marks(model)

    kinds = comfy.model_base.ModelType
    edm = type("Sampling", (comfy.model_sampling.ModelSamplingContinuousEDM, comfy.model_sampling.V_PREDICTION), {})()
    metadata, tensors = marks(edm, kinds.V_PREDICTION_EDM)
    assert metadata == {} and tensors["edm_vpred.sigma_max"].item() == pytest.approx(edm.sigma_max.item())
    terminal = comfy.model_sampling.ModelSamplingDiscrete(zsnr=True)
    metadata, tensors = marks(terminal, kinds.V_PREDICTION)
    assert metadata == {"modelspec.predict_key": "v"} and sorted(tensors) == ["v_pred", "ztsnr"]


@pytest.mark.parametrize("shape", [(20, 12), (20, 12, 3, 3), (20, 12, 1, 1)])
def test_factors_of_a_difference_of_low_rank_give_it_back(shape):
    generator = torch.Generator().manual_seed(0)
    down, across = (torch.randint(2, (size,), generator=generator) * 2.0 - 1 for size in (shape[0], torch.Size(shape[1:]).numel()))
    low = torch.outer(down, across)
    up, down = nodes_lora_extract.extract_lora(low.view(shape), 1)
    assert up.shape[1] == down.shape[0] == 1 and down.shape[1:] == torch.Size(shape[1:])
    found = up.flatten(1) @ down.flatten(1)
    assert (found - low).norm() / low.norm() < 1e-4


def test_rare_large_values_of_factors_are_cut():
    spike = torch.full((64, 64), 0.01)
    spike[3, 5] = 100.0
    up, down = nodes_lora_extract.extract_lora(spike, 100)
    assert up.shape == down.shape == (64, 64), "no rank is above the sides"
    values = torch.cat([up.flatten(), down.flatten()])
    assert values.max() == -values.min() and values.max() < 1.0


def test_quantiles_are_interpolated():
    values = torch.randn(1001, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.5, 0.99, 0.1234):
        assert nodes_lora_extract._quantile(values, share).item() == pytest.approx(torch.quantile(values, share).item(), abs=1e-5)


def test_a_difference_is_saved_as_a_lora_that_gives_it_back(models, output):
    one, two = models
    (difference,) = merging.ModelSubtract().merge(one, two, 1.0)
    node = nodes_lora_extract.LoraSave
    node.execute("loras/own", 64, "standard", True, model_diff=difference)
    node.execute("loras/whole", 64, "full_diff", False, model_diff=difference)
    assert node.execute("loras/none", 64, "standard", True).args == ()
    factors, _ = read(output / "loras" / "own_00001_.safetensors")
    whole, _ = read(output / "loras" / "whole_00001_.safetensors")
    own, other = weights(one), weights(two)
    change = own["first.weight"] - other["first.weight"]
    found = factors["diffusion_model.first.lora_up.weight"].float() @ factors["diffusion_model.first.lora_down.weight"].float()
    assert (found - change).norm() / change.norm() < 0.2, "rare large values are cut"
    assert torch.allclose(whole["diffusion_model.first.diff"].float(), change, atol=5e-3)
    assert torch.allclose(factors["diffusion_model.first.diff_b"].float(), own["first.bias"] - other["first.bias"], atol=5e-3)
    assert "diffusion_model.norm.diff" in factors and not [name for name in whole if name.endswith("diff_b")]


def lora_file(folder):
    generator = torch.Generator().manual_seed(3)
    path = folder / "one.safetensors"
    tensors = {
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_up.weight": torch.randn(32, 2, generator=generator),
        "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_down.weight": torch.randn(2, 32, generator=generator),
    }
    safetensors.torch.save_file(tensors, path)
    return path, tensors


def test_loras_may_stay_beside_the_weights(tmp_path, monkeypatch):
    path, tensors = lora_file(tmp_path)
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: str(tmp_path / name))
    base, _, _ = loaded()
    (beside,) = nodes_lora_debug.LoraLoaderBypassModelOnly().load_lora_model_only(base, path.name, 0.5)
    assert not beside.patches and beside.get_injections("bypass_lora")
    assert nodes_lora_debug.LoraLoaderBypass().load_lora(base, None, path.name, 0, 0) == (base, None)
    (given,) = nodes_train.LoraModelLoader.execute(base, tensors, 0.5, bypass=True).args
    assert given.get_injections("bypass_lora") and not given.patches
    (patched,) = nodes_train.LoraModelLoader.execute(base, tensors, 0.5).args
    assert list(patched.patches) == ["diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"]
    assert nodes_train.LoraModelLoader.execute(base, tensors, 0).args[0] is base


def test_loras_are_saved_with_their_steps(output):
    tensors = {"one.lora_up.weight": torch.ones(2, 3).T}
    nodes_train.SaveLoRA.execute(tensors, "loras/own")
    nodes_train.SaveLoRA.execute(tensors, "loras/own", steps=12)
    names = sorted(path.name for path in (output / "loras").iterdir())
    assert names == ["own_00001_.safetensors", "own_12_steps_00002_.safetensors"]
    assert read(output / "loras" / names[1])[0]["one.lora_up.weight"].equal(torch.ones(3, 2))


def test_every_module_offers_its_nodes():
    assert len(merging.NODE_CLASS_MAPPINGS) == 11
    assert importlib.import_module("comfy_extras.nodes_model_merging_model_specific").ModelMergeSDXL in (
        importlib.import_module("comfy_extras.nodes_model_merging_model_specific").NODE_CLASS_MAPPINGS.values()
    )
