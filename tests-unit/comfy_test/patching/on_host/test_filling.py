"""Values are there at the end of the block, made by threads that compute alone; what goes wrong is raised there, nothing stays loaded."""

import threading

import pytest
import torch
from residency_models import HOST, management

from comfy.model_patcher import ModelPatcher
from comfy.patching.on_host import row_blocks
from comfy.patching.on_host.filling import MOST_THREADS, Filling
from comfy.weight_adapter import LoRAAdapter


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def seen(three_threads):
    """(name of the thread, how many threads it computes with, inference mode) of each call of ``note``."""
    return []


def test_values_are_filled_at_the_end_by_threads_that_compute_alone(seen):
    def note(number):
        seen.append((threading.current_thread().name, torch.get_num_threads(), torch.is_inference_mode_enabled(), number))

    with Filling() as filling:
        for number in range(20):
            filling.add(note, number)
        assert not seen
    assert sorted(number for *_, number in seen) == list(range(20))
    assert {call[:3] for call in seen} == {("patched-values", 1, True)} and torch.get_num_threads() == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "patched-values"]


def test_without_threads_values_are_filled_by_the_one_that_is_there(seen, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with Filling() as filling:
            for number in range(3):
                filling.add(seen.append, number)
    assert seen == [0, 1, 2] and torch.get_num_threads() == 3


def test_one_thread_or_very_many_are_left_to_torch():
    before = torch.get_num_threads()
    try:
        for count in (1, 2, MOST_THREADS, MOST_THREADS + 1):
            torch.set_num_threads(count)
            assert Filling().is_worth_it is (1 < count <= MOST_THREADS)
    finally:
        torch.set_num_threads(before)


def test_what_goes_wrong_is_raised_at_the_end_and_the_rest_is_not_begun(three_threads):
    begun = []

    def fail(number):
        begun.append(number)
        raise MemoryError(f"no room for {number}")

    with pytest.raises(MemoryError, match="no room for"), Filling() as filling:
        for number in range(500):
            filling.add(fail, number)
    assert len(begun) < 500


def test_nothing_is_filled_for_a_block_that_raised(seen):
    with pytest.raises(KeyError, match="its own"), Filling() as filling:
        filling.add(seen.append, 1)
        raise KeyError("its own")
    assert not seen


def test_a_model_whose_values_could_not_be_filled_is_not_loaded_and_loads_later(three_threads, monkeypatch):
    layers = torch.nn.Sequential(*(torch.nn.Linear(10, 24, bias=False, dtype=torch.float16) for _ in range(3))).requires_grad_(False)
    pristine = [layer.weight for layer in layers]
    base = ModelPatcher(layers, HOST, HOST)
    clone = base.clone()
    change = LoRAAdapter(set(), (torch.ones(24, 2), torch.ones(2, 10), 2.0, None, None, None))
    clone.add_patches({f"{index}.weight": change for index in range(3)}, 0.5)

    def no_memory(*arguments):
        raise MemoryError("no room")

    with monkeypatch.context() as patched, pytest.raises(MemoryError):  # a caller that does not detach
        patched.setattr(row_blocks, "_fill", no_memory)
        clone.patch_model(HOST)
    assert all(layer.weight is weight for layer, weight in zip(layers, pristine, strict=True))
    with management() as manager:
        with monkeypatch.context() as patched, pytest.raises(MemoryError):
            patched.setattr(row_blocks, "_fill", no_memory)
            manager.load_models_gpu([clone])
        assert all(layer.weight is weight for layer, weight in zip(layers, pristine, strict=True))
        manager.load_models_gpu([clone])
        for layer, weight in zip(layers, pristine, strict=True):
            assert torch.equal(layer.weight, (weight.float() + 1.0).half())
