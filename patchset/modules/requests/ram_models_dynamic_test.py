"""Dynamic models with the real comfy-aimdo, as far as a machine without a card allows: buffers on the host."""

import importlib

import pytest
import torch
from ram_models_loaders_test import CPU, Net

from comfy import model_patcher
from comfy.ram_models.loaders import RamModels, _ends, _size

aimdo = pytest.importorskip("comfy_aimdo.control")
host_buffer = pytest.importorskip("comfy_aimdo.host_buffer")
pytestmark = pytest.mark.skipif(not hasattr(model_patcher.ModelPatcher, "loaded_ram_size"), reason="dynamic models came with 0.24")


def test_what_was_read_so_far_counts_and_clones_share_it(tmp_path):
    if not aimdo.init("cuda"):
        pytest.skip("comfy-aimdo does not load here")
    if host_buffer.lib is None:  # imported before its library was loaded, which main.py does first
        importlib.reload(host_buffer)
    made = model_patcher.ModelPatcherDynamic(Net(), torch.device("cuda", 0), CPU)
    models = RamModels(1 << 30)
    load = models.diffusion_model(lambda unet_path, model_options=None, disable_dynamic=False: made)
    (tmp_path / "a").write_bytes(b"a")
    clone = load(str(tmp_path / "a"))
    assert clone.is_dynamic() and clone.model is made.model and _size(made) == 0 and _ends(made) == {}
    state = made.model.dynamic_pins[made.load_device]
    state["weights"] = (host_buffer.HostBuffer(0, 0, 1 << 20), *state["weights"][1:])
    state["weights"][0].extend(1 << 16, register=False)
    assert _size(made) == 1 << 16 and load(str(tmp_path / "a")).model is made.model
    models.cache.cap_bytes = 1
    models.shrink(1, "test")
    assert not models.cache.entries and clone.parent is made
    state["weights"][0].truncate(0, do_unregister=False)  # there is no driver to unregister it from
