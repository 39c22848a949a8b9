"""Dynamic models of ComfyUI with the real comfy-aimdo, as far as a machine without its accelerator allows: buffers on the host."""

import importlib

import pytest
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

from comfy import model_patcher
from comfy.ram_model_cache.storage import host_storages, is_dynamic
from comfy.ram_model_cache_hooks.owner import ModelCacheOwner, deactivate_pins

aimdo = pytest.importorskip("comfy_aimdo.control")
host_buffer = pytest.importorskip("comfy_aimdo.host_buffer")
pytestmark = pytest.mark.skipif(not hasattr(model_patcher.ModelPatcher, "loaded_ram_size"), reason="dynamic models came with 0.24")
SIZE = 1 << 16


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 64)
        self.model_loaded_weight_memory = 0
        self.current_weight_patches_uuid = None


@pytest.fixture
def dynamic():
    if not aimdo.init("cuda"):
        pytest.skip("comfy-aimdo does not load here")
    if host_buffer.lib is None:  # imported before its library was loaded, which main.py does first
        importlib.reload(host_buffer)
    made = model_patcher.ModelPatcherDynamic(Net(), torch.device("cuda", 0), torch.device("cpu"))
    yield made
    if made.loaded_ram_size():
        state_of(made)["weights"][0].truncate(0, do_unregister=False)  # there is no driver to unregister it from


def state_of(patcher):
    return patcher.model.dynamic_pins[patcher.load_device]


def fill(patcher):
    """As the first weight does: a buffer that can grow takes the place of the empty one."""
    state = state_of(patcher)
    state["weights"] = (host_buffer.HostBuffer(0, 0, 1 << 20), *state["weights"][1:])
    state["weights"][0].extend(SIZE, register=False)


def test_weights_read_into_host_buffers_count_also_when_they_are_not_pinned(dynamic):
    assert is_dynamic(dynamic)
    assert sum(host_storages(dynamic).values()) == 0
    fill(dynamic)
    assert dynamic.pinned_memory_size() == 0
    assert sum(host_storages(dynamic).values()) == dynamic.loaded_ram_size() == SIZE
    assert sum(host_storages(dynamic.clone()).values()) == SIZE


def test_pins_become_inactive_and_nothing_else_is_touched(dynamic):
    state = state_of(dynamic)
    state["active"] = True
    before = {key: value for key, value in state.items() if key != "active"}
    deactivate_pins(dynamic)
    assert state["active"] is False
    assert all(state[key] is value for key, value in before.items())


def test_restoring_a_base_leaves_the_weights_in_their_buffers(dynamic):
    owner = ModelCacheOwner(None, [], lambda: None)
    fill(dynamic)
    owner.note_loaded(dynamic)
    owner.restore_base(dynamic)
    assert dynamic.loaded_ram_size() == SIZE
