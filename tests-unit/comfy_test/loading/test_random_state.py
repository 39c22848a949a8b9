"""Loaders draw nothing from the process's random state: called ahead, beside a sampler, they change no picture."""

import random

import numpy
import pytest
import torch
from residency_models import arguments, management

import folder_paths
from app.read_ahead.loads import node_load
from benchmarks.make_addons import controlnet_layout
from benchmarks.make_checkpoint import checkpoint_layout, clip_layout, family, open_clip_layout, unet_layout, vae_layout, write_checkpoint
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.residency.model_cache import make_ram_cache

GIB = 1024**3
pytestmark = pytest.mark.timeout(300)  # the first imports the libraries
SD15, SDXL = family("sd15", 10), family("sdxl", 10)
LAYOUTS = {
    "checkpoints/sd15.safetensors": (checkpoint_layout(SD15), SD15),
    "checkpoints/sdxl.safetensors": (checkpoint_layout(SDXL), SDXL),
    "text_encoders/l.safetensors": (clip_layout(SDXL.clip_l), SDXL),
    "text_encoders/g.safetensors": (open_clip_layout(SDXL.clip_g), SDXL),
    "diffusion_models/unet.safetensors": (unet_layout(SDXL.unet), SDXL),
    "vae/vae.safetensors": (vae_layout(SDXL.vae), SDXL),
    "controlnet/control.safetensors": (controlnet_layout(SD15), SD15),
}
NODES = {
    "checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": "sd15.safetensors"}),
    "checkpoint of SDXL": ("CheckpointLoaderSimple", {"ckpt_name": "sdxl.safetensors"}),
    "diffusion model": ("UNETLoader", {"unet_name": "unet.safetensors", "weight_dtype": "default"}),
    "diffusion model cast": ("UNETLoader", {"unet_name": "unet.safetensors", "weight_dtype": "fp8_e4m3fn"}),
    "text encoder": ("CLIPLoader", {"clip_name": "l.safetensors", "type": "stable_diffusion"}),
    "text encoders": ("DualCLIPLoader", {"clip_name1": "l.safetensors", "clip_name2": "g.safetensors", "type": "sdxl"}),
    "autoencoder": ("VAELoader", {"vae_name": "vae.safetensors"}),
    "controlnet": ("ControlNetLoader", {"control_net_name": "control.safetensors"}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("random-state")
    for number, (name, (layout, sizes)) in enumerate(LAYOUTS.items()):
        (place / name).parent.mkdir(exist_ok=True)
        write_checkpoint(str(place / name), layout, number, "fp32", metadata=sizes.metadata())
    return place


@pytest.fixture
def cache(files, monkeypatch):
    """A cache of 1 GiB over the small files."""
    for name in {name.split("/")[0] for name in LAYOUTS}:
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(files / name)], {".safetensors"}))
    memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
    with management(cache=lambda owner: make_ram_cache(arguments(ram_model_cache_mb=1024), owner), memory=memory) as manager:
        yield manager.ram_cache


def drawn():
    """What would be drawn next from torch, Python and NumPy."""
    return torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())


@pytest.mark.parametrize("what", NODES)
def test_a_loader_called_ahead_leaves_the_random_state_alone(cache, what):
    import nodes

    class_type, inputs = NODES[what]
    load = node_load({"class_type": class_type, "inputs": inputs}, nodes.NODE_CLASS_MAPPINGS)
    assert load.states() is not None
    torch.manual_seed(3)
    before = drawn()
    with cache.ahead.block(beyond_cap=True):
        load.run()
    assert cache.ahead.waiting(), "it was read"
    assert drawn() == before
