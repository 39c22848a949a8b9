"""Whole models with quantised weights: loaded, patched, streamed, kept in RAM and saved, in the file's precision."""

import dataclasses

import pytest
import safetensors.torch
import torch
from quantised_files import KINDS, quantised_model, text
from residency_models import MIB, arguments, management
from safetensors import safe_open
from small_models import small_checkpoint

import comfy.sd
from benchmarks.make_checkpoint import family
from comfy.loading.lora import load_lora_for_models
from comfy.loading.saving import save_checkpoint
from comfy.patching.layers import layers_of
from comfy.patching.tripwire import tripwire
from comfy.quantisation import kitchen
from comfy.quantisation.weights import dequantised, is_quantised
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.residency.model_cache import make_ram_cache
from comfy.wrapper_tensors import stored_bytes

pytest.importorskip("comfy_kitchen", reason=kitchen.INSTALL)
UNET = "model.diffusion_model."
KEY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
GIB = 1024**3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quantised")


def files(folder, kind, prefix=UNET):
    """(path of a small SD 1.5 checkpoint whose matrices below *prefix* are *kind*, of the same multiplied out)."""
    paths = [folder / f"{kind}-{prefix}{name}.safetensors".replace(" ", "-") for name in ("stored", "plain")]
    if not paths[0].exists():
        with safe_open(small_checkpoint(), "pt") as opened:
            tensors, metadata = {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()  # noqa: SIM118
        stored, plain, notes = quantised_model(kind, tensors, prefix, in_metadata=kind == "mxfp8")
        for path, content, more in zip(paths, (stored, plain), (notes, {})):
            safetensors.torch.save_file({key: value.contiguous() for key, value in content.items()}, path, {**metadata, **more})
    return [str(path) for path in paths]


def loaded(path):
    return comfy.sd.load_checkpoint_guess_config(path, output_vae=False)[:2]


def in_full_precision(model):
    """Turn off products in few bits, so that results can be compared exactly."""
    for layer in model.model.modules():
        if getattr(layer, "quantised", None) is not None:
            layer.few_bits = False


def output(model, manager):
    manager.load_models_gpu([model])
    generator = torch.Generator().manual_seed(1)
    latent, context = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 7, 64, generator=generator)
    with torch.inference_mode():
        return model.model.apply_model(latent, torch.tensor([5.0]), c_crossattn=context)


def lora(model):
    """A LoRA for each attention weight."""
    generator, file = torch.Generator().manual_seed(0), {}
    for key, weight in model.model_state_dict().items():
        if "attn" in key and weight.ndim == 2:
            name = "lora_unet_" + key.removeprefix("diffusion_model.").removesuffix(".weight").replace(".", "_")
            file[f"{name}.lora_up.weight"] = 0.1 * torch.randn(weight.shape[0], 2, generator=generator)
            file[f"{name}.lora_down.weight"] = 0.1 * torch.randn(2, weight.shape[1], generator=generator)
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_keeps_its_precision_and_gives_what_its_values_give(folder, kind):
    stored, plain = files(folder, kind)
    with management(None) as manager:
        (model, _), (other, _) = loaded(stored), loaded(plain)
        weights = {key: weight for key, weight in model.model_state_dict().items() if is_quantised(weight)}
        assert len(weights) > 50 and KEY in weights and model.model_size() < 0.9 * other.model_size()
        in_full_precision(model)
        expected = output(other, manager)
        assert torch.allclose(output(model, manager), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["fp8", "nvfp4", "int8 convrot", pytest.param("w4a8", marks=pytest.mark.long)])
def test_loras_streaming_and_devices_give_the_same_bits_and_leave_nothing(folder, kind):
    answers = []
    for vram_bytes in (None, 64 * MIB, MIB):
        with management(vram_bytes) as manager:
            model, _ = loaded(files(folder, kind)[0])
            before = dict(model.model.named_parameters())
            patched, _ = load_lora_for_models(model, None, lora(model), 0.8, 0.0)
            assert KEY in patched.patches
            answers.append([output(model, manager), output(patched, manager), output(model, manager)])
            layers = layers_of(model.model)
            assert any(layer.is_streamed for layer in layers) == (vram_bytes == MIB)
            manager.unload_all_models()
            assert all(before[path] is parameter for path, parameter in model.model.named_parameters()) and not tripwire().leaks
    first = answers[0]
    assert torch.equal(first[0], first[2]) and not torch.allclose(first[0], first[1], atol=1e-3)
    for others in answers[1:]:
        assert all(torch.equal(own, other) for own, other in zip(first, others))


def test_a_lora_changes_quantised_weights_as_it_changes_their_values(folder):
    stored, plain = files(folder, "int8 rows")
    with management(None) as manager:
        model, other = loaded(stored)[0], loaded(plain)[0]
        changed = []
        for one in (model, other):
            patched, _ = load_lora_for_models(one, None, lora(one), 0.8, 0.0)
            manager.load_models_gpu([patched])
            changed.append(patched.model_state_dict()[KEY])
        assert is_quantised(changed[0])
        assert (dequantised(changed[0]) - changed[1]).norm() / changed[1].norm() < 0.02
        manager.unload_all_models()
        merged = other.clone()
        merged.add_patches(model.get_key_patches("diffusion_model.input_blocks"), 0.5, 0.5)
        manager.load_models_gpu([merged])
        found = merged.model_state_dict()[KEY]
        assert torch.allclose(found, other.get_key_patches()[KEY][0][0], atol=1e-4), "merging uses the values"


def test_the_cache_counts_the_bytes_of_the_file(folder):
    memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
    with management(cache=lambda owner: make_ram_cache(arguments(ram_model_cache_mb=1024), owner), memory=memory) as manager:
        kept = {}
        for name, path in zip(("stored", "plain"), files(folder, "fp8")):
            model, _ = loaded(path)
            entry = next(one for one in manager.ram_cache.entries(lambda one, _: one) if getattr(one.value, "model", None) is model.model)
            kept[name] = sum(entry.storages.values())
            own = sum(stored_bytes(parameter) for parameter in model.model.parameters())
            assert own <= kept[name] < own * 1.05 + 200_000
        assert kept["stored"] < 0.9 * kept["plain"] and manager.ram_cache.check() == []
        manager.ram_cache.close()


def test_text_encoders_keep_theirs(folder):
    prefix = "cond_stage_model."
    stored, plain = files(folder, "fp8", prefix)
    with management(None):
        answers = []
        for path in (stored, plain):
            _, clip = loaded(path)
            answers.append(clip.encode_from_tokens(clip.tokenize("a cat on a mat")))
            quantised = [key for key, weight in clip.patcher.model_state_dict().items() if is_quantised(weight)]
            assert len(quantised) == (18 if path == stored else 0)
        assert torch.allclose(answers[0], answers[1], rtol=1e-5, atol=1e-5)


def test_a_layer_that_asks_for_full_precision_gets_it(folder, tmp_path):
    path = files(folder, "int8")[0]
    with safe_open(path, "pt") as opened:
        tensors, metadata = {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()  # noqa: SIM118
    layer = UNET + KEY.removeprefix("diffusion_model.").removesuffix(".weight")
    tensors[f"{layer}.comfy_quant"] = text({"format": "int8_tensorwise", "full_precision_matrix_mult": True})
    safetensors.torch.save_file(tensors, tmp_path / "one.safetensors", metadata)
    with management(None):
        model, _ = loaded(str(tmp_path / "one.safetensors"))
        quantised = {name: one for name, one in model.model.named_modules() if getattr(one, "quantised", None) is not None}
        assert [name for name, one in quantised.items() if not one.few_bits] == [KEY.removesuffix(".weight")]


@pytest.mark.parametrize("kind", [*KINDS[:-1], pytest.param(KINDS[-1], marks=pytest.mark.long)])
def test_a_saved_model_is_the_same_model(folder, tmp_path, kind):
    with management(None) as manager:
        model, _ = loaded(files(folder, kind)[0])
        scaled = model.model.get_submodule(KEY.removesuffix(".weight"))
        scaled.quantised = dataclasses.replace(scaled.quantised, input_scale=torch.tensor(2.0))
        path = str(tmp_path / "again.safetensors")
        save_checkpoint(path, model, metadata=family("sd15", 10).metadata())
        again = comfy.sd.load_diffusion_model(path)
        assert again.model.get_submodule(KEY.removesuffix(".weight")).quantised == scaled.quantised
        assert torch.equal(output(again, manager), output(model, manager))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_are_kept_in_the_fp8_type_that_is_asked_for(dtype, caplog):
    path, answers = small_checkpoint(), []
    for vram_bytes in (None, MIB):
        with management(vram_bytes) as manager:
            model = comfy.sd.load_diffusion_model(path, {"dtype": dtype, "fp8_optimizations": True})
            parameters, buffers = list(model.model.parameters()), sum(buffer.nbytes for buffer in model.model.buffers())
            assert {parameter.dtype for parameter in parameters} == {dtype}
            assert model.model_size() == sum(map(torch.numel, parameters)) + buffers
            patched, _ = load_lora_for_models(model, None, lora(model), 0.8, 0.0)
            answers.append([output(model, manager), output(patched, manager), output(model, manager)])
            rounded = comfy.sd.load_diffusion_model(path)
            for parameter in rounded.model.parameters():
                parameter.copy_(parameter.to(dtype))
            assert torch.equal(output(rounded, manager), answers[-1][0])
            manager.unload_all_models()
    assert all(torch.equal(own, other) for own, other in zip(*answers)) and torch.equal(answers[0][0], answers[0][2])
    assert not torch.allclose(answers[0][0], answers[0][1], atol=1e-3)
    assert ("does not make them; weights are cast" in caplog.text) == (dtype == torch.float8_e4m3fn)
