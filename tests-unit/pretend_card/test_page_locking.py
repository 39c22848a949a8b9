"""Page-locked memory ends before the memory does, whatever becomes of the model."""

from __future__ import annotations

import gc
import pathlib
from typing import Any

import pytest
import torch
from engine import FP32, STARTER, Engine, engine, on_host, unload

import comfy.model_management as management
import comfy.residency.arena_pinner as arena_pinner
import comfy.residency.devices as devices

OTHER = "starter-outlines.safetensors"
STREAMED = {"novram": True, **FP32}
TEXTS: list[Any] = []


@pytest.fixture(autouse=True)
def small_blocks_are_locked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_pinner, "SMALLEST_BYTES", 1 << 20)


def ranges(made: Engine) -> dict[int, int]:
    assert made.machine is not None
    return made.machine.page_locks.ranges


def settle() -> None:
    gc.collect()
    management.cleanup_models_gc()
    assert management.manager().pinner.settle(30)


def sampled(made: Engine, name: str = STARTER) -> torch.Tensor:
    """One step with the texts of the first engine that asked: they lie on the host."""
    if not TEXTS:
        TEXTS.extend(made.parts(name)[3:])
    return on_host(made.sample(made.checkpoint(name)[0], *TEXTS, steps=1)).clone()


def test_a_streamed_model_is_locked_in_few_ranges_and_none_outlives_it(models: pathlib.Path) -> None:
    with engine(1, **STREAMED) as made:
        expected = sampled(made)
        settle()
        locks = made.machine.page_locks
        assert 0 < locks.counts["register"] <= 4
        again = sampled(made)
        settle()
        assert torch.equal(expected, again) and locks.counts["register"] <= 4, "nothing is locked anew for each prompt"
        made.forget()
        settle()
        assert ranges(made) == {} and management.manager().pin_ledger.total_bytes() == 0


def test_switching_models_leaves_no_range_over_memory_that_is_gone(models: pathlib.Path) -> None:
    with engine(1, **STREAMED) as made:
        for name in (STARTER, OTHER, STARTER, OTHER):
            sampled(made, name)
            settle()
            living = [weight.untyped_storage() for weight in made.checkpoint(name)[0].pristine_weights()]
            spans = {(storage.data_ptr(), storage.nbytes()) for storage in living}
            for address, size in ranges(made).items():
                assert any(start <= address and address + size <= start + length for start, length in spans)
            made.forget()
            settle()
        assert ranges(made) == {} and made.machine.page_locks.faults() == []


def test_streamed_weights_come_from_locked_memory(models: pathlib.Path) -> None:
    with engine(1, **STREAMED) as made:
        sampled(made)
        settle()
        before = dict(made.card.counters)
        sampled(made)
        moved = {kind: made.card.counters[kind] - before.get(kind, 0) for kind in ("h2d bytes", "h2d locked bytes")}
        assert moved["h2d locked bytes"] > 0.9 * moved["h2d bytes"]


@pytest.mark.parametrize("card_mib", [12, 4096])
def test_host_copies_that_are_given_up_are_not_kept_by_the_lock(
    models: pathlib.Path, monkeypatch: pytest.MonkeyPatch, card_mib: int
) -> None:
    monkeypatch.setattr(devices.CudaDevice, "keeps_host_copy", lambda self: False)
    with engine(1, card_mib=card_mib, working_mib=0.5, **FP32) as made:
        expected = sampled(made)
        settle()
        made.card.capacity_bytes = 64 << 20  # more room: what was streamed becomes resident
        assert torch.allclose(sampled(made), expected, atol=1e-2)
        settle()
        model: Any = made.checkpoint()[0]
        assert all(backup.weight is None for backup in model.backup.values())
        assert ranges(made) == {}, "nothing of it is left in host memory"
        unload(made)
        assert torch.allclose(sampled(made), expected, atol=1e-2)
        made.forget()
        settle()
        assert ranges(made) == {}


def test_nothing_is_locked_where_the_flag_says_so(models: pathlib.Path) -> None:
    with engine(1, disable_pinned_memory=True, **STREAMED) as made:
        sampled(made)
        settle()
        assert made.machine.page_locks.counts["register"] == 0


def test_a_failure_to_lock_is_no_failure(models: pathlib.Path) -> None:
    with engine(1, **STREAMED) as made:
        expected = sampled(made)
        made.forget()
        settle()
        made.machine.page_locks.fails = lambda address, size: True
        assert torch.equal(sampled(made), expected)
        settle()
        assert ranges(made) == {}
