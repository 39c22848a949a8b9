"""A prompt's history says where its models came from."""

import asyncio

import pytest
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

import comfy.ram_models_receipts as receipts
from comfy.ram_models.loaders import RamModels


class Executor:
    history_result = None


@pytest.fixture
def models(monkeypatch):
    made = RamModels(1)
    monkeypatch.setattr(receipts, "ram_models", made)
    return made


def test_what_happened_in_a_prompt_is_in_its_history_only(models):
    executor = Executor()

    @receipts.with_receipts
    async def execute_async(executor, prompt, prompt_id):
        for name in prompt:
            models.told("loaded", name, 7, 0.5)
        executor.history_result = {"outputs": {}}

    models.told("loaded", "before", 1, 0.0)
    asyncio.run(execute_async(executor, ["model of a"], "p"))
    row = {"model": "model of a", "event": "loaded", "bytes": 7, "seconds": 0.5}
    assert executor.history_result == {"outputs": {}, "models": [row]}
    asyncio.run(execute_async(executor, [], "q"))
    assert executor.history_result == {"outputs": {}}


def test_a_prompt_that_fails_early_leaves_the_history_before_as_it_is(models):
    executor = Executor()
    executor.history_result = {"outputs": {}}

    @receipts.with_receipts
    async def execute_async(executor):
        models.told("loaded", "model of a", 7, 0.5)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(execute_async(executor))
    assert executor.history_result == {"outputs": {}}


def test_off_means_off(monkeypatch):
    monkeypatch.setattr(receipts, "ram_models", RamModels(0))
    assert receipts.with_receipts(len) is len


def test_no_more_is_kept_than_a_thousand_rows(models):
    collected = receipts.Receipts()
    for number in range(1200):
        collected("hit", str(number), 0, 0.0)
    assert [row["model"] for row in collected.take()] == [str(number) for number in range(200, 1200)] and not collected.take()
