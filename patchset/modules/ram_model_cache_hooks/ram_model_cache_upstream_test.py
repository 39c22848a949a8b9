"""The cache in ComfyUI's own modules: untouched while off; on, over real patchers and the real model manager."""

import argparse
import inspect

import pytest
import torch

from comfy.cli_args import args, parser

if not torch.cuda.is_available():
    args.cpu = True

import comfy.clip_vision
import comfy.controlnet
import comfy.sd
import execution
import nodes
from comfy import model_management, model_patcher
from comfy.ram_model_cache.cache import CacheSettings
from comfy.ram_model_cache.weights_key import weights_key
from comfy.ram_model_cache_hooks.owner import ModelCacheOwner

CPU = torch.device("cpu")
HOOKED = [
    model_management.free_memory,
    model_management.load_models_gpu,
    model_management.cleanup_models_gc,
    comfy.sd.load_checkpoint_guess_config,
    comfy.sd.load_clip,
    comfy.sd.load_diffusion_model,
    comfy.clip_vision.load,
    comfy.controlnet.load_controlnet,
    nodes.VAELoader.load_vae,
    execution.execute,
    execution.PromptExecutor.execute_async,
]


@pytest.fixture
def host():
    made = ModelCacheOwner(
        CacheSettings(1 << 30, headroom_bytes=0),
        model_management.current_loaded_models,
        model_management.throw_exception_if_processing_interrupted,
    )
    yield made
    assert made.cache.check() == []
    made.cache.close()
    model_management.current_loaded_models.clear()


@pytest.fixture
def key(tmp_path):
    (tmp_path / "file").write_bytes(b"weights")
    return weights_key("model", [tmp_path / "file"])


def build(host, key):
    """A loader's result under *key*, its weights noted as the wrapped loaders do."""

    def load(missing):
        base = model_patcher.ModelPatcher(torch.nn.Linear(64, 64), CPU, CPU)
        base.model.device = CPU
        base.model.model_lowvram = False
        host.note_loaded(base)
        return {key: base}

    return host.cache.fetch({key: 64 * 65 * 4}, load)[key]


def test_switched_off_the_hooked_functions_are_comfyuis_own():
    assert model_management.ram_model_cache.cache.enabled is False
    for function in HOOKED:
        assert not hasattr(function, "__wrapped__")
        assert inspect.getsourcefile(function).endswith((".py",))
        assert "ram_cache" not in inspect.getsourcefile(function)


def test_it_is_off_unless_the_flag_is_given():
    assert parser.parse_args([]).ram_model_cache_mb == 0
    assert parser.parse_args(["--ram-model-cache-mb", "5", "--ram-model-cache-ttl", "60"]).ram_model_cache_mb == 5


def test_the_parser_s_names_are_those_the_cache_reads():
    given = parser.parse_args([])
    assert isinstance(given, argparse.Namespace)
    assert ModelCacheOwner.from_args(given, [], lambda: None).cache.enabled is False
    assert ModelCacheOwner.from_args(parser.parse_args(["--ram-model-cache-mb", "5"]), [], lambda: None).cache.enabled is True


def test_loaded_models_are_known_and_leave_the_list_when_evicted(host, key):
    load, free = host.loads(model_management.load_models_gpu), host.unloads(model_management.free_memory)
    model = build(host, key)
    load([model])
    load([model])
    assert len(model_management.current_loaded_models) == 1
    finalizer = model_management.current_loaded_models[0].model_finalizer
    del model
    model_management.cleanup_models_gc()
    host.clear()
    assert model_management.current_loaded_models == []
    assert not finalizer.alive
    model = build(host, key)
    load([model])
    assert len(free(1e30, CPU)) == 1
    counters = host.cache.stats().counters
    assert (counters.reclaims, counters.vram_evictions) == (2, 1)
    del model
    build(host, key)
    assert host.cache.receipts(None)[-1]["tier"] == "ram"


def test_a_patched_clone_leaves_the_base_bit_identical(host, key, caplog):
    model = build(host, key)
    before = model.model.weight.detach().clone()
    patched = model.clone()
    patched.add_patches({"weight": ("diff", (torch.ones(64, 64),))}, 0.5)
    host.loads(model_management.load_models_gpu)([patched])
    assert not torch.equal(patched.model.weight, before)
    host.cache.safe_point()
    assert not torch.equal(patched.model.weight, before)
    del model, patched
    host.cache.safe_point()
    again = build(host, key)
    assert torch.equal(again.model.weight, before)
    assert again.backup == {}
    assert host.cache.stats().counters.misses == 1
    assert "memory leak" not in caplog.text


def test_an_object_patch_does_not_outlive_its_clone(host, key):
    model = build(host, key)
    plain = model.model.bias
    patched = model.clone()
    patched.add_object_patch("bias", torch.nn.Parameter(torch.ones(64)))
    host.loads(model_management.load_models_gpu)([patched])
    assert patched.model.bias is not plain
    del model, patched
    host.cache.safe_point()
    assert build(host, key).model.bias is plain


def test_a_model_changed_for_good_is_not_handed_out_again(host, key, caplog):
    model = build(host, key)
    model.model.half()
    del model
    host.cache.safe_point()
    assert "could not be restored" in caplog.text
    assert build(host, key).model.weight.dtype == torch.float32
    assert host.cache.stats().counters.misses == 2


def test_deep_clones_by_re_creation_share_nothing(host, key, tmp_path):
    if "force_deepcopy" not in inspect.signature(model_patcher.ModelPatcher.clone).parameters:
        pytest.skip("this version re-creates dynamic models only")
    path = tmp_path / "file"

    def load_diffusion_model(unet_path, model_options=None, disable_dynamic=False):
        base = model_patcher.ModelPatcher(torch.nn.Linear(8, 8), CPU, CPU)
        base.cached_patcher_init = (load, (unet_path, model_options))
        return base

    load = host.loaders.diffusion_model(load_diffusion_model)
    first = load(str(path))
    assert load(str(path)).model is first.model
    deep = first.clone(force_deepcopy=True)
    assert deep.model is not first.model
    assert host.cache.stats().counters.bypasses == 1


def test_freeing_everything_through_the_executor_empties_the_cache(host, key, monkeypatch):
    monkeypatch.setattr(model_management, "ram_model_cache", host)
    build(host, key)
    assert host.cache.stats().kept == 1

    class Executor:
        cache_type, cache_args = execution.CacheType.NONE, {}

    execution.PromptExecutor.reset(Executor())
    assert host.cache.stats().kept == 0
