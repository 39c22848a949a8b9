"""The owner of what holds models makes each thing once, and what it makes is complete."""

import copy
import gc
import logging
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from residency_models import HOST, Layers, arguments, management, patcher_of

import comfy.model_management as names
from comfy.cli_flags import PerformanceFeature
from comfy.residency.process_models import ProcessModels
from comfy.residency.torch_settings import apply_torch_settings


def test_each_part_is_made_once_by_many_threads():
    models = ProcessModels(arguments(cpu=True, ram_model_cache_mb=64))
    start, found = threading.Barrier(8), []

    def ask():
        start.wait()
        found.append((models.ram_cache(), models.manager(), models.policy(), models.devices()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(one[index] is found[0][index] for one in found for index in range(4))
    assert found[0][1].ram_cache is found[0][0] and found[0][1].devices is found[0][3]
    models.ram_cache().close()


def test_the_cache_needs_no_torch_and_no_manager():
    code = (
        "import sys; from comfy.cli_args import args; from comfy.residency.process_models import ProcessModels\n"
        "args.ram_model_cache_mb = 64; models = ProcessModels(args)\n"
        "print(models.ram_cache().enabled, models.has_manager(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_the_queue_may_be_given_after_the_cache_was_made():
    models = ProcessModels(arguments(cpu=True, ram_model_cache_mb=64))
    cache, asked = models.ram_cache(), []

    def pending_paths():
        asked.append(1)
        return ()

    cache.tick()
    assert not asked
    models.watch_queue(pending_paths)
    cache.tick()
    assert asked
    cache.close()


def test_a_model_that_the_cache_drops_leaves_the_managers_list():
    models = ProcessModels(arguments(simulated_vram_mb=1, ram_model_cache_mb=64))
    before = names.use_manager(models.manager())
    try:
        cache = models.ram_cache()
        patcher = cache.admit("model", patcher_of(Layers()), 1.0)
        names.load_models_gpu([patcher])
        assert len(models.manager().current_loaded_models) == 1
        del patcher
        cache.clear()
        gc.collect()
        cache.safe_point()
        assert models.manager().current_loaded_models == []
    finally:
        names.use_manager(before)
        models.ram_cache().close()


def test_roles_ask_for_what_a_pack_has_put_in_place(monkeypatch):
    with management():
        monkeypatch.setattr(names, "get_torch_device", lambda: torch.device("meta"))
        assert names.vae_device() == torch.device("meta") and names.vae_offload_device() == HOST
        monkeypatch.setattr(names, "should_use_fp16", lambda device=None: True)
        assert names.lora_compute_dtype(HOST) == torch.float16


def test_a_copy_of_a_structure_that_holds_a_role_keeps_it():
    held = {"device": names.vae_device, "dtype": names.unet_dtype, "facts": names.cpu_mode}
    assert copy.deepcopy(held) == held


@pytest.mark.parametrize(
    ("flag", "claims"),
    [
        ("use_pytorch_cross_attention", (True, False, False)),
        ("use_split_cross_attention", (False, False, False)),
        ("use_quad_cross_attention", (False, False, False)),
        ("use_sage_attention", (True, True, False)),
        ("use_flash_attention", (True, False, True)),
    ],
)
def test_flags_say_which_attention_is_in_use(flag, claims, monkeypatch):
    monkeypatch.setattr(names.args, flag, True)
    monkeypatch.setattr(names, "cpu_mode", lambda: False)
    with management():
        assert (names.pytorch_attention_enabled(), names.sage_attention_enabled(), names.flash_attention_enabled()) == claims


def test_copies_are_queued_everywhere_by_flag(monkeypatch):
    with management():
        assert not names.device_supports_non_blocking(torch.device("mps"))
        monkeypatch.setattr(names.args, "force_non_blocking", True)
        assert names.device_supports_non_blocking(torch.device("mps"))


@pytest.mark.parametrize(("kind", "given", "expected"), [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)])
def test_half_precision_adds_up_in_half_precision_by_flag_on_cards(kind, given, expected, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    matmul = SimpleNamespace(allow_fp16_accumulation=False)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    apply_torch_settings(arguments(fast={PerformanceFeature.Fp16Accumulation} if given else set()), kind)
    assert matmul.allow_fp16_accumulation is expected
    assert ("fp16_accumulation" in caplog.text) is expected


def test_an_error_that_torch_did_not_make_is_judged_without_torch():
    code = "import sys, comfy.model_management as m; print(m.is_oom(MemoryError()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert names.is_oom(torch.OutOfMemoryError("full")) and not names.is_oom(RuntimeError("full"))
    assert names.is_oom(torch.AcceleratorError("CUDA error: out of memory")) and not names.is_oom(torch.AcceleratorError("CUDA error: bad"))
