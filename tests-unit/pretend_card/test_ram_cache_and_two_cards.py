"""Models that alternate on a card that holds one, through the RAM model cache; and two cards."""

from __future__ import annotations

import gc
import pathlib
from collections import Counter
from typing import Any

import pytest
import torch
from engine import FP32, STARTER, Engine, engine, on_host, unload

import comfy.model_management as management
import comfy.residency.arena_pinner as arena_pinner
import comfy.weight_files.fresh_memory as fresh_memory

OTHER = "starter-outlines.safetensors"
MIB = 1 << 20


@pytest.fixture
def small_arenas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_pinner, "SMALLEST_BYTES", MIB)
    monkeypatch.setattr(fresh_memory, "SMALLEST_BYTES", MIB)


def prompt(made: Engine, name: str) -> torch.Tensor:
    """One prompt whose executor keeps nothing."""
    model, clip, _ = made.node("CheckpointLoaderSimple", ckpt_name=name)
    samples = made.sample(model, made.text(clip, "a seven"), made.text(clip, ""), steps=1)
    del model, clip
    gc.collect()
    management.ram_cache().safe_point()
    return on_host(samples).clone()


def test_models_that_alternate_are_read_once_and_come_back_from_locked_memory(models: pathlib.Path, small_arenas: None) -> None:
    with engine(1, card_mib=20, working_mib=0.5, ram_model_cache_mb=400, **FP32) as made:
        cache, card = management.ram_cache(), made.card
        first = {name: prompt(made, name) for name in (STARTER, OTHER)}
        for _ in range(2):
            for name, expected in first.items():
                assert torch.equal(prompt(made, name), expected)
        assert management.manager().pinner.settle(60)
        misses, before = cache.stats().counters.misses, Counter(card.counters)
        for name, expected in first.items():
            assert torch.equal(prompt(made, name), expected)
        moved = Counter(card.counters)
        moved.subtract(before)
        assert cache.stats().counters.misses == misses, "nothing is read again"
        assert moved["h2d locked bytes"] > 0.8 * moved["h2d bytes"]
        assert moved["h2d blocking"] < 0.2 * moved["h2d copies"], "the copies of a load are queued"
        assert cache.check() == [] and management.manager().pinner.check() == []


def test_what_left_for_ram_is_locked_before_it_comes_back(models: pathlib.Path, small_arenas: None) -> None:
    with engine(1, ram_model_cache_mb=400, **FP32) as made:
        manager = management.manager()
        expected = prompt(made, STARTER)
        unload(made)
        assert manager.pin_ledger.total_bytes() == 0
        manager.end_prompt()
        while manager.pinner.stats().waiting_bytes:
            pass
        assert manager.pin_ledger.total_bytes() > 5 * MIB
        before = Counter(made.card.counters)
        assert torch.equal(prompt(made, STARTER), expected)
        moved = Counter(made.card.counters)
        moved.subtract(before)
        assert moved["h2d locked bytes"] > 0.8 * moved["h2d bytes"], "already the first time that it comes back"


def test_eviction_copies_nothing_back(models: pathlib.Path, small_arenas: None) -> None:
    with engine(1, ram_model_cache_mb=400, **FP32) as made:
        prompt(made, STARTER)
        before = made.card.counters["d2h bytes"]
        unload(made)
        assert made.card.counters["d2h bytes"] == before and made.card.used_bytes() == 0


def on_card(model: Any, index: int) -> Any:
    moved = model.clone()
    moved.load_device = torch.device("cuda", index)
    return moved


def test_a_model_moves_between_two_cards(models: pathlib.Path) -> None:
    with engine(2, **FP32) as made:
        assert made.machine is not None
        model, _, _, positive, negative = made.parts()
        expected = on_host(made.sample(model, positive, negative, steps=2)).clone()
        other = on_card(model, 1)
        assert torch.equal(on_host(made.sample(other, positive, negative, steps=2)), expected)
        assert made.machine.cards[0].used_bytes() == 0 < made.machine.cards[1].used_bytes()
        assert torch.equal(on_host(made.sample(model, positive, negative, steps=2)), expected)
        assert made.machine.cards[1].used_bytes() == 0
        del model, other


def test_a_model_streams_to_the_second_card(models: pathlib.Path) -> None:
    with engine(2, novram=True, **FP32) as made:
        assert made.machine is not None
        model, _, _, positive, negative = made.parts()
        expected = on_host(made.sample(model, positive, negative, steps=2)).clone()
        moved = on_card(model, 1)
        assert torch.equal(on_host(made.sample(moved, positive, negative, steps=2)), expected)
        assert made.machine.cards[1].counters["h2d bytes"] > 1_000_000
        del model, moved


def test_a_copy_of_a_model_lives_on_the_second_card(models: pathlib.Path) -> None:
    with engine(2, **FP32) as made:
        model, _, _, positive, negative = made.parts()
        expected = on_host(made.sample(model, positive, negative, steps=2)).clone()
        twin = model.deepclone_multigpu(new_load_device=torch.device("cuda", 1))
        assert torch.equal(on_host(made.sample(twin, positive, negative, steps=2)), expected)
        assert all(card.used_bytes() > 0 for card in made.machine.cards)
        del model, twin
