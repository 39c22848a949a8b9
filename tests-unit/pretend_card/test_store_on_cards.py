"""Weights in a store on a pretend card: their twins are page-locked and copied from, and never what this process wrote itself."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from engine import FP32, STARTER, Engine, engine, on_host

import comfy.model_management as management
import comfy.residency.arena_pinner as arena_pinner
from comfy.cli_args import args
from comfy.ram_model_store import mapping
from comfy.ram_model_store.folder import MEMORY_FILE_SYSTEMS, SHARED_MEMORY, file_system_of
from comfy.residency import stand_ins

STREAMED = {"novram": True, "ram_model_cache_mb": 1024, **FP32}


@pytest.fixture(autouse=True)
def small_blocks_are_locked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_pinner, "SMALLEST_BYTES", 1 << 20)


@pytest.fixture
def store() -> Iterator[str]:
    if not os.path.isdir(SHARED_MEMORY) or file_system_of(os.stat(SHARED_MEMORY).st_dev) not in MEMORY_FILE_SYSTEMS:
        pytest.skip("there is no memory file system")
    path = tempfile.mkdtemp(prefix="keepwarm-test-", dir=SHARED_MEMORY)
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def a_server(store: str, **flags: Any) -> Iterator[Engine]:
    """An engine on one card whose weights are in *store*."""
    with engine(1, ram_model_store=store, ram_model_store_mb=None, **{**STREAMED, **flags}) as made:
        assert management.process_models().open_store() is not None
        yield made
        settle()
        made.forget()
        management.ram_cache().clear()
        settle()
        assert ranges(made) == {} and management.manager().pin_ledger.total_bytes() == 0


def ranges(made: Engine) -> dict[int, int]:
    assert made.machine is not None
    return made.machine.page_locks.ranges


def settle() -> None:
    gc.collect()
    management.cleanup_models_gc()
    assert management.manager().pinner.settle(30)


def sampled(made: Engine) -> torch.Tensor:
    model, _, _, positive, negative = made.parts(STARTER)
    return on_host(made.sample(model, positive, negative, steps=2)).clone()


def locked_share(made: Engine) -> float:
    """Of the bytes that two steps copy to the card, how many come from locked memory."""
    before = dict(made.card.counters)
    sampled(made)
    moved = {kind: made.card.counters[kind] - before.get(kind, 0) for kind in ("h2d bytes", "h2d locked bytes")}
    return moved["h2d locked bytes"] / moved["h2d bytes"]


@pytest.fixture
def plain(models: pathlib.Path) -> torch.Tensor:
    with engine(1, **STREAMED) as made:
        return sampled(made)


@pytest.mark.parametrize("flags", [{}, {"novram": False, "highvram": True}], ids=["streamed", "whole"])
def test_the_server_that_stores_and_the_next_one_copy_from_locked_twins(
    models: pathlib.Path, store: str, plain: torch.Tensor, flags: dict[str, bool]
) -> None:
    for _ in range(2):
        with a_server(store, **flags) as made:
            assert torch.equal(sampled(made), plain)
            settle()
            held = management.process_models().store()
            assert held is not None and held.mapped()
            assert not any(held.holds(address, size) for address, size in ranges(made).items()), "private pages are never locked"
            if not flags:
                assert ranges(made) and locked_share(made) > 0.9
            assert torch.equal(sampled(made), plain)


def test_what_this_process_wrote_is_copied_from_where_it_wrote_it(
    models: pathlib.Path, store: str, plain: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(args, "verify_unpatch", False, raising=False)  # it finds what is written here on purpose

    def changed(made: Engine) -> torch.Tensor:
        sampled(made)
        settle()
        torch.cuda.synchronize()
        for weight in made.checkpoint()[0].pristine_weights():
            if weight.dim() == 4:
                weight.mul_(1.5)
        return sampled(made)

    with engine(1, **STREAMED) as made:
        expected = changed(made)
    with a_server(store) as made:
        assert torch.equal(changed(made), expected) and not torch.equal(expected, plain)
        assert ranges(made), "the twins are locked all the same"
    with a_server(store) as made:
        assert torch.equal(sampled(made), plain), "nobody else's weights changed"


def test_what_is_sent_early_comes_from_locked_twins_and_not_if_written_to_since(
    models: pathlib.Path, store: str, plain: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(args, "verify_unpatch", False, raising=False)

    def write(weights: list[torch.Tensor]) -> None:
        for number, weight in enumerate(weights):
            (weight if number % 2 else weight.data).view(-1)[-1:].add_(1.0)  # as torch counts it, and as it does not

    with engine(1, **STREAMED) as made:
        write(convolutions(made))
        expected = sampled(made)
        assert not torch.equal(expected, plain)
    with a_server(store, novram=False) as made:
        lock(made.checkpoint()[0])
        card, early = made.card.counters, management.manager().devices.find(made.card.device).early
        for touch, wanted in ((False, plain), (True, expected)):
            management.unload_all_models()
            management.manager().expect([made.checkpoint()[0]])
            before = dict(card)
            made.text(made.checkpoint()[1], "another")
            assert early is not None and early.size_bytes() > 0.9 * made.checkpoint()[0].model_size()
            assert card["h2d locked bytes"] - before.get("h2d locked bytes", 0) >= early.size_bytes()
            torch.cuda.synchronize()
            written = convolutions(made) if touch else []
            write(written)
            before = dict(card)
            assert torch.equal(sampled(made), wanted)
            again = card["h2d bytes"] - before["h2d bytes"]
            assert sum(weight.nbytes for weight in written) <= again < 0.5 * made.checkpoint()[0].model_size()


def lock(model: Any) -> None:
    pinner = management.manager().pinner
    pinner.request(model.model, model.pristine_weights())
    assert pinner.settle(60)
    while pinner.stats().waiting_bytes:
        pass


def convolutions(made: Engine) -> list[torch.Tensor]:
    """A few weights of the diffusion model, as they are on the host."""
    return [weight for weight in made.checkpoint()[0].pristine_weights() if weight.dim() == 4][:6]


def test_where_the_system_does_not_tell_of_pages_copies_are_plain_and_it_is_said_once(
    models: pathlib.Path, store: str, plain: torch.Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(mapping, "PAGE_MAP", "/nothing/there")
    with a_server(store) as made:
        sampled(made)
        settle()
        assert locked_share(made) < 0.1 and torch.equal(sampled(made), plain)
    assert caplog.text.count("does not tell which pages were written to") == 1


def test_where_locking_fails_copies_are_plain(models: pathlib.Path, store: str, plain: torch.Tensor) -> None:
    with a_server(store) as made:
        assert made.machine is not None
        made.machine.page_locks.fails = lambda address, size: True
        sampled(made)
        settle()
        assert locked_share(made) < 0.1 and ranges(made) == {} and torch.equal(sampled(made), plain)


def test_without_locking_there_are_no_twins(models: pathlib.Path, store: str) -> None:
    with a_server(store, disable_pinned_memory=True) as made:
        sampled(made)
        held = management.process_models().store()
        assert held is not None and not held.makes_twins and not held._twins
        assert stand_ins.StandIns(held, management.manager().pin_ledger).for_copying(4096, 1) is None
