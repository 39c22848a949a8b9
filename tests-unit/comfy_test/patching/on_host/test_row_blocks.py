"""Changes of low rank, added in blocks of rows: the values of the whole computation, in less memory; everything else is left to it."""

import weakref

import pytest
import torch
from residency_models import HOST, management
from torch.utils._python_dispatch import TorchDispatchMode

import comfy.lora
from comfy.model_patcher import ModelPatcher
from comfy.patching import low_vram
from comfy.patching.low_vram import patched_value
from comfy.patching.on_host import row_blocks
from comfy.patching.on_host.filling import Filling, OnHost
from comfy.patching.on_host.row_blocks import in_row_blocks
from comfy.weight_adapter import LoHaAdapter, LoRAAdapter

ROWS, COLUMNS, RANK = 24, 10, 4
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def numbers(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def lora(rows=ROWS, columns=(COLUMNS,), seed=1, alpha=2.0, **others):
    up, down = numbers(rows, RANK, *(1 for _ in columns[1:]), seed=seed), numbers(RANK, *columns, seed=seed + 1)
    return LoRAAdapter(set(), (up.half(), down.half(), alpha, others.get("mid"), others.get("dora"), others.get("reshape")))


def patch(change, strength=0.7, kept=1.0, part=None, function=None):
    return (strength, change, kept, part, function)


CASES = {
    "one": [patch(lora())],
    "several": [patch(lora(), 0.7), patch(lora(seed=5, alpha=None), -0.4, kept=0.5)],
    "slices": [patch(lora(8), part=(0, 3, 8)), patch(lora(16, seed=7), kept=2.0, part=(0, 8, 16))],
}


@pytest.fixture
def threads():
    """Sets how many threads torch uses."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("block_rows", [1, 5, ROWS, 100])
@pytest.mark.parametrize("count", [1, 3], ids=["at once", "by threads of its own"])
@pytest.mark.parametrize("patches", CASES.values(), ids=CASES)
def test_values_are_those_of_the_whole_computation(monkeypatch, threads, patches, count, block_rows, dtype):
    threads(count)
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES" if count == 1 else "OWN_BLOCK_BYTES", block_rows * COLUMNS * 4)
    monkeypatch.setattr(row_blocks, "BLOCKS_AT_ONCE", 2)
    weight = numbers(ROWS, COLUMNS, dtype=dtype)
    before = weight.clone()
    with Filling() as filling:
        assert filling.is_worth_it is (count > 1)
        found = in_row_blocks(patches, weight, torch.float32, dtype, OnHost(filling=filling))
    whole = comfy.lora.calculate_weight(patches, weight.to(torch.float32, copy=True), "w")
    assert found.dtype == dtype and found.is_contiguous() and torch.equal(weight, before)
    # The order of a sum of RANK terms may differ: one unit in the last place.
    torch.testing.assert_close(found.float(), whole.to(dtype).float(), rtol=torch.finfo(dtype).eps, atol=1e-6)
    assert not torch.equal(found, weight)


def test_convolutions_keep_their_shape():
    weight, patches = numbers(ROWS, 6, 3, 3).half(), [patch(lora(columns=(6, 3, 3)))]
    found = in_row_blocks(patches, weight, torch.float32, torch.float16)
    whole = comfy.lora.calculate_weight(patches, weight.float(), "w").half()
    torch.testing.assert_close(found, whole, rtol=1e-3, atol=1e-6)


class OwnWay(LoRAAdapter):
    def calculate_weight(self, weight, *arguments, **options):
        return weight


OTHERS = {
    "function": patch(lora(), function=lambda change: change),
    "columns": patch(lora(columns=(4,)), part=(1, 2, 4)),
    "middle": patch(lora(mid=numbers(RANK, RANK))),
    "norms": patch(lora(dora=torch.ones(ROWS))),
    "larger": patch(lora(reshape=[ROWS + 2, COLUMNS])),
    "misfit": patch(lora(ROWS - 1)),
    "no rank": patch(LoRAAdapter(set(), (torch.zeros(ROWS, 0), torch.zeros(0, COLUMNS), None, None, None, None))),
    "loha": patch(
        LoHaAdapter(set(), (numbers(ROWS, 2), numbers(2, COLUMNS), None, numbers(ROWS, 2), numbers(2, COLUMNS), None, None, None))
    ),
    "a pack's": patch(OwnWay(set(), lora().weights)),
    "difference": patch(("diff", (numbers(ROWS, COLUMNS),))),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_is_no_product_is_left_to_the_whole_computation(other):
    weight = numbers(ROWS, COLUMNS).half()
    assert in_row_blocks([patch(lora()), other], weight, torch.float32, torch.float16) is None
    expected = comfy.lora.calculate_weight([patch(lora()), other], weight.float(), "w").half()
    assert torch.equal(patched_value([patch(lora()), other], weight, "w", None, torch.float16), expected)


@pytest.mark.parametrize("weight", [numbers(COLUMNS, ROWS).half().T, numbers(ROWS, COLUMNS).to(torch.float8_e4m3fn), numbers(ROWS)])
def test_weights_of_another_kind_are_left_to_it(weight):
    assert in_row_blocks([patch(lora())], weight, torch.float32, weight.dtype) is None


def test_what_a_pack_put_in_place_of_the_computation_is_used(monkeypatch):
    monkeypatch.setattr(comfy.lora, "calculate_weight", lambda patches, weight, key, **_: weight.fill_(3.0))
    weight = numbers(ROWS, COLUMNS).half()
    assert torch.equal(patched_value([patch(lora())], weight, "w", None, torch.float16), torch.full_like(weight, 3.0))
    own = patched_value([patch(lora())], weight, "w", None, torch.float16, lambda patches, weight, key: weight.fill_(4.0))
    assert torch.equal(own, torch.full_like(weight, 4.0))


class LargestWide(TorchDispatchMode):
    """The bytes of the largest float32 tensor that was made."""

    size_bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float32:
            self.size_bytes = max(self.size_bytes, made.untyped_storage().nbytes())
        return made


def test_no_whole_copy_in_another_dtype_is_made():
    weight = torch.zeros(4096, 1024, dtype=torch.float16)
    with LargestWide() as watched:
        patched_value([patch(lora(4096, (1024,)))], weight, "w", None, torch.float16)
    assert 0 < watched.size_bytes <= row_blocks.BLOCK_BYTES < 4 * weight.numel()


def test_another_strength_drops_each_old_value_right_before_the_new_one(monkeypatch):
    layers = torch.nn.Sequential(*(torch.nn.Linear(COLUMNS, ROWS, bias=False, dtype=torch.float16) for _ in range(3)))
    base, alive = ModelPatcher(layers.requires_grad_(False), HOST, HOST), []

    def loaded(strength):
        clone = base.clone()
        clone.add_patches({f"{index}.weight": lora() for index in range(3)}, strength)
        with management() as manager:
            manager.load_models_gpu([clone])
        return [weakref.ref(layer.weight) for layer in layers]

    def counted(*arguments):
        alive.append(sum(old() is not None for old in before))
        return in_row_blocks(*arguments)

    before = loaded(0.5)
    monkeypatch.setattr(low_vram, "in_row_blocks", counted)
    loaded(0.9)
    assert alive == [2, 1, 0]
