"""An autoencoder on a card that runs out of memory: in the network it goes on in tiles, while loading it says so."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine import FP32, Engine, engine, leftovers, on_host, unload

LARGE_BYTES = 100_000


def work(made: Engine, kind: str) -> Callable[[], torch.Tensor]:
    vae = made.checkpoint()[2]
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    pixels = made.picture()
    return {"decode": lambda: vae.decode(latent), "encode": lambda: vae.encode(pixels)}[kind]


@pytest.mark.parametrize("kind", ["decode", "encode"])
def test_without_room_for_the_weights_it_fails(models: pathlib.Path, kind: str) -> None:
    with engine(1, **FP32) as made:
        run, card = work(made, kind), made.card
        expected = on_host(run()).clone()
        unload(made)
        start = card.serial
        card.refuses = lambda size, serial: serial == start + 20
        with pytest.raises(torch.OutOfMemoryError):
            run()
        card.refuses = None
        assert card.used_bytes() == 0
        assert torch.equal(on_host(run()), expected)


@pytest.mark.parametrize("error", [None, "CUDA error: out of memory"])
@pytest.mark.parametrize("kind", ["decode", "encode"])
def test_without_room_for_the_network_it_works_in_tiles(
    models: pathlib.Path, caplog: pytest.LogCaptureFixture, kind: str, error: str | None
) -> None:
    with engine(1, **FP32) as made:
        run, card, refused = work(made, kind), made.card, []
        expected = on_host(run()).clone()
        made.checkpoint()[2]._load(0)

        def refuse(size: int, serial: int) -> bool:
            if size < LARGE_BYTES or refused:
                return False
            refused.append(size)
            if error is not None:
                raise torch.AcceleratorError(error)
            return True

        card.refuses = refuse
        found = on_host(run())
        card.refuses = None
        assert refused and "in tiles" in caplog.text
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_other_errors_of_the_card_are_not_hidden(models: pathlib.Path) -> None:
    with engine(1, **FP32) as made:
        run = work(made, "decode")
        made.checkpoint()[2]._load(0)

        def fault(size: int, serial: int) -> Any:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

        made.card.refuses = fault
        with pytest.raises(torch.AcceleratorError, match="illegal"):
            run()
        made.card.refuses = None
        unload(made)
        assert leftovers(made) == []
