"""The example of a pack that patches a model, and what the whole workflow around it costs in run after run."""

import gc

import psutil
import pytest
import torch
from face_workflow import Workflow, files, pack, workplace
from residency_models import MIB

import comfy.lora
import comfy.sample
from comfy.families.attention_blocks import cross_attention_blocks
from comfy.families.model_errors import ModelFileError
from comfy.patching.patched_models import content_memo, patched_models
from comfy.patching.tripwire import tripwire
from comfy.residency.simulated import SimulatedDevice

RUNS = 10
PLACES = pytest.mark.parametrize("vram_bytes", [None, 64 * MIB], ids=["processor", "simulated"])


def figures():
    built, computed = patched_models().describe(), content_memo().describe()
    return {"built": built["misses"] + built["unique"] + built["refused"], "computed": computed["misses"] + computed["unique"]}


def gained(before):
    return {name: value - before[name] for name, value in figures().items()}


@PLACES
def test_a_new_text_and_seed_build_and_compute_nothing(vram_bytes):
    with workplace(vram_bytes):
        workflow, before = Workflow(), figures()
        workflow.run()
        assert gained(before) == {"built": 5, "computed": 3}, "each LoRA for model and text encoder, and the face; its tokens and keys"
        for seed in range(2, 4):
            workflow.run(f"text {seed}", seed)
        assert gained(before) == {"built": 5, "computed": 3}
        workflow.image = workflow.image.clone()
        workflow.image[0, 5, 5, 0] += 0.25
        workflow.run()
        assert gained(before) == {"built": 6, "computed": 6}, "one changed pixel is another face"


def test_the_face_changes_the_picture_by_each_way():
    with workplace():
        workflow = Workflow()
        plain, full = workflow.run(weight=0.0), workflow.run()
        assert full.isfinite().all() and (full - plain).abs().mean() > 1e-3
        late = workflow.run(part=(0.9, 1.0))
        assert not torch.equal(late, full) and not torch.equal(late, plain)
        control_alone = workflow.run(weight=0.0, steps=1)
        workflow.nodes.FaceAttention.__call__, before = (lambda self, q, k, v, extra: q * 0), workflow.nodes.FaceAttention.__call__
        try:
            assert not torch.equal(workflow.run(weight=0.0, steps=1), control_alone), "every cross-attention is the patch's"
        finally:
            workflow.nodes.FaceAttention.__call__ = before


@PLACES
def test_no_block_waits_for_the_device_or_computes_keys_again(vram_bytes, monkeypatch):
    nodes, _ = pack()
    calls = []

    def noting(self, q, k, v, extra):
        with NoWaiting():
            found = own(self, q, k, v, extra)
        calls.append(self.keys.device == q.device == self.values.device and self.keys.dtype == q.dtype)
        return found

    own = nodes.FaceAttention.__call__
    monkeypatch.setattr(nodes.FaceAttention, "__call__", noting)
    moved, to = [], nodes.FaceAttention.to

    def moving(self, target):
        moved.append(target)
        return to(self, target)

    monkeypatch.setattr(nodes.FaceAttention, "to", moving)
    with workplace(vram_bytes) as manager:
        workflow = Workflow()
        for seed in range(3):
            del calls[:], moved[:]
            workflow.run(seed=seed, part=(0.0, 0.8), steps=4)
            blocks = 16
            assert len(calls) % blocks == 0 and len(calls) >= 4 * blocks and all(calls)
            device = manager.devices.accelerators[0].torch_device if manager.devices.accelerators else torch.device("cpu")
            assert moved.count(device) == blocks, "keys and values go to the device once per sampling"


class NoWaiting(torch.utils._python_dispatch.TorchDispatchMode):
    """Raises when a number is asked from a device, or a tensor is copied to another one."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "nonzero", "item", "equal"), name
        found = function(*arguments, **(options or {}))
        if name == "_to_copy":
            assert found.device == arguments[0].device
        return found


class Off:
    """All re-use switched off."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(type(patched_models()), "patched", lambda own, base, params, build: _build(base, build))
        monkeypatch.setattr(type(content_memo()), "remembered", lambda own, params, compute: compute())


def _build(base, build):
    clone = base.clone()
    return build(clone) or clone


@pytest.mark.timeout(600)
@PLACES
def test_ten_runs_build_once_give_the_same_bits_and_stay_flat(vram_bytes, monkeypatch):
    prompts = [(f"a portrait, number {number}", number) for number in range(RUNS)]
    with monkeypatch.context() as switched, workplace(vram_bytes, cache_mb=0):
        Off(switched)
        expected = {index: Workflow().run(*prompts[index], steps=1) for index in (0, 5, 9)}
    patched, received, resident = [], [], []
    receive = SimulatedDevice.receive
    monkeypatch.setattr(SimulatedDevice, "receive", lambda own, *given: received.append(1) or receive(own, *given))
    calculate = comfy.lora.calculate_weight
    monkeypatch.setattr(comfy.lora, "calculate_weight", lambda *given, **options: patched.append(1) or calculate(*given, **options))
    parsed, load = [], comfy.lora.load_lora
    monkeypatch.setattr(comfy.lora, "load_lora", lambda *given: parsed.append(1) or load(*given))
    leaks = tripwire().leaks
    with workplace(vram_bytes) as manager:
        workflow, before = Workflow(), figures()
        for index, (text, seed) in enumerate(prompts):
            latent = workflow.run(text, seed, steps=1)
            assert index not in expected or torch.equal(latent, expected[index])
            if index == 0:
                first = len(patched), len(received), manager.ram_cache.stats().counters.misses
            gc.collect(0)
            resident.append(psutil.Process().memory_info().rss)
        assert gained(before) == {"built": 5, "computed": 3} and len(parsed) == 2
        assert first[0] > 0 and bool(first[1]) == bool(vram_bytes)
        assert first == (len(patched), len(received), manager.ram_cache.stats().counters.misses), (
            "patched, moved and read in the first run only"
        )
        assert patched_models().check() == content_memo().check() == manager.ram_cache.check() == []
    assert max(resident[3:]) - min(resident[3:]) < 16 * MIB
    assert tripwire().leaks == leaks


def test_an_adapter_for_another_model_is_refused(tmp_path):
    with workplace():
        workflow = Workflow("sdxl-light")
        workflow.paths = {**files("sdxl-light"), "adapter": files("sd15")["adapter"], "control": files("sd15")["control"]}
        with pytest.raises(ValueError, match="16 cross-attentions"):
            workflow.patched("a")
        with pytest.raises(ModelFileError, match="lora1"):
            workflow.nodes.LoadedAdapter.load(files("sd15")["lora1"])


def test_the_weights_written_are_in_the_published_layout():
    sdxl = {
        "model_channels": 320,
        "channel_mult": [1, 2, 4],
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "context_dim": 2048,
    }
    layout = dict(pack()[1].adapter_layout(sdxl))
    assert layout["image_proj.latents"] == (1, 16, 1280) and layout["image_proj.proj_in.weight"] == (1280, 512)
    assert layout["image_proj.layers.3.0.to_kv.weight"] == (2560, 1280) and layout["image_proj.proj_out.weight"] == (2048, 1280)
    assert layout["ip_adapter.1.to_k_ip.weight"] == (640, 2048) and layout["ip_adapter.139.to_v_ip.weight"] == (1280, 2048)
    assert sum(name.startswith("ip_adapter.") for name in layout) == 2 * len(cross_attention_blocks(sdxl)) == 140
