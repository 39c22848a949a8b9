"""While the card encodes texts, weights of the model that will sample are sent from page-locked memory."""

from __future__ import annotations

import gc
import pathlib
from typing import Any

import pretend.machine as clock
import pytest
import torch
from engine import FP32, MIB, NO_MEMORY, ON_CARD, Engine, engine, no_memory, on_host

import comfy.model_management as management
import comfy.residency.arena_pinner as arena_pinner
import comfy.weight_files.fresh_memory as fresh_memory
from comfy.cli_args import args
from comfy.residency.early_copies import EarlyCopies

OTHER = "starter-outlines.safetensors"
IN_RAM = {"ram_model_cache_mb": 400}


@pytest.fixture(autouse=True)
def small_blocks_are_locked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_pinner, "SMALLEST_BYTES", MIB)
    monkeypatch.setattr(fresh_memory, "SMALLEST_BYTES", MIB)


def locked_parts(made: Engine) -> Any:
    """(model, text encoder) whose weights lie in page-locked memory, with nothing on the card."""
    model, clip, _ = made.checkpoint()
    pinner = management.manager().pinner
    for part in (model, clip.patcher):
        pinner.request(part.model, part.pristine_weights())
    assert pinner.settle(60)
    while pinner.stats().waiting_bytes:
        pass
    management.unload_all_models()
    return model, clip


def early(made: Engine) -> Any:
    return management.manager().devices.find(made.card.device).early


def sampled(made: Engine, model: Any, positive: Any, negative: Any) -> torch.Tensor:
    return on_host(made.sample(model, positive, negative, steps=1)).clone()


def test_copies_of_the_next_model_run_while_texts_are_encoded(models: pathlib.Path) -> None:
    with engine(1, **IN_RAM, **ON_CARD) as made:
        model, clip = locked_parts(made)
        expected = sampled(made, model, made.text(clip, "a seven"), made.text(clip, ""))
        management.unload_all_models()
        machine, counters = made.machine, made.card.counters
        assert machine is not None
        management.manager().expect([model])
        machine.scheduler.trace, waited = [], counters["syncs"]
        tokens = clip.tokenize("a seven")
        states = clip.encode_from_tokens_scheduled(tokens)
        trace = machine.scheduler.trace
        computing = {made.card.default.number}
        copying = {span.queue for span in trace if span.what == "h2d"} - computing
        assert len(copying) == 1 and sum(span.size_bytes for span in trace if span.queue in copying) == early(made).size_bytes()
        assert early(made).size_bytes() > 0.9 * model.model_size()
        encoding = {span.queue for span in trace if span.what != "h2d"}
        assert encoding == computing and machine.scheduler.overlap_us(copying, computing) > 0
        assert counters["syncs"] - waited <= 2, "the host waits for the encoded text only"
        before = counters["h2d bytes"]
        found = sampled(made, model, states, made.text(clip, ""))
        assert torch.equal(found, expected)
        assert counters["h2d bytes"] - before < 0.2 * model.model_size(), "what was sent is not copied again"
        assert early(made).size_bytes() == 0
        del model, clip, states, tokens


def test_what_was_sent_is_not_copied_between_the_texts_and_the_first_step(models: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prints what sending early saves, by the clock of a card that takes a hundred times as long for each byte, as for larger models."""
    for rate in ("COPY_BYTES_PER_US", "PAGEABLE_BYTES_PER_US", "KERNEL_BYTES_PER_US"):
        monkeypatch.setattr(clock, rate, getattr(clock, rate) / 100)
    with engine(1, **IN_RAM, **ON_CARD) as made:
        model, clip = locked_parts(made)
        machine, card, figures = made.machine, made.card.counters, []
        assert machine is not None
        empty = made.text(clip, "")
        for expected in ([], [model]):
            management.unload_all_models()
            management.load_models_gpu([clip.patcher])
            torch.cuda.synchronize()
            management.manager().expect(expected)
            started_us, before = machine.scheduler.host_us, dict(card)
            words = made.text(clip, "a seven")
            encoded_us, after = machine.scheduler.host_us, dict(card)
            samples = sampled(made, model, words, empty)
            torch.cuda.synchronize()
            counts = [
                later[kind] - sooner[kind] for sooner, later in ((before, after), (after, card)) for kind in ("h2d copies", "h2d bytes")
            ]
            figures.append((*counts, encoded_us - started_us, machine.scheduler.host_us - encoded_us, samples))
        for name, (*numbers, _) in zip(("all in the load", "sent early"), figures):
            print(name, "copies, bytes with the texts: {}, {}; with the first step: {}, {}; us: {:.0f}, {:.0f}".format(*numbers))
        whole, sent = figures
        assert torch.equal(whole[-1], sent[-1])
        assert whole[1] < 0.01 * model.model_size() < 0.9 * model.model_size() < whole[3]
        assert sent[1] > 0.9 * model.model_size() and sent[3] < 0.02 * model.model_size()
        saved_us, texts_us = whole[4] + whole[5] - sent[4] - sent[5], whole[4]
        assert saved_us > 0.8 * texts_us, "what crosses while texts are encoded costs no time of its own"
        del model, clip, words, empty


def test_what_is_written_to_after_it_was_sent_is_copied_anew(models: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(args, "verify_unpatch", False)  # it finds what is written here on purpose
    with engine(1, **IN_RAM, **FP32) as made:
        model, clip = locked_parts(made)
        texts = made.text(clip, "a seven"), made.text(clip, "")
        results = [sampled(made, model, *texts)]
        for counted in (True, False):
            management.unload_all_models()
            management.manager().expect([model])
            made.text(clip, "another")
            assert early(made).size_bytes() > 0.9 * model.model_size()
            torch.cuda.synchronize()
            weight = max(model.pristine_weights(), key=lambda one: one.nbytes)
            (weight if counted else weight.data).mul_(2)  # torch counts the one, and not the other
            results.append(sampled(made, model, *texts))
            management.unload_all_models()
            assert torch.equal(sampled(made, model, *texts), results[-1]), "as without anything sent"
        assert not any(torch.equal(one, other) for one, other in zip(results, results[1:]))
        management.unload_all_models()
        management.manager().expect([model])
        made.text(clip, "yet another")
        assert management.manager().has_sent()
        management.manager().distrust([clip.patcher])
        assert management.manager().has_sent(), "not of this model"
        management.manager().distrust([model])
        assert not management.manager().has_sent()
        made.text(clip, "and one more")
        assert early(made).size_bytes() > 0.9 * model.model_size(), "as it is now"
        del model, clip, texts, weight


def test_patched_weights_are_not_sent_and_results_are_the_same(models: pathlib.Path) -> None:
    with engine(1, **IN_RAM, **FP32) as made:
        model, clip = locked_parts(made)
        changed = made.first("LoraLoaderModelOnly", model=model, lora_name="starter-plain.safetensors", strength_model=0.8)
        texts = made.text(clip, "a seven"), made.text(clip, "")
        expected = sampled(made, changed, *texts)
        management.unload_all_models()
        management.manager().expect([model, changed])
        made.text(clip, "another")
        assert (
            0
            < early(made).size_bytes()
            < model.model_size() - sum(weight.nbytes for weight in changed.pristine_weights() if weight.ndim == 2 and weight.nbytes > MIB)
        )
        assert torch.equal(sampled(made, changed, *texts), expected)
        del model, clip, changed, texts


def test_only_what_is_free_is_taken_and_it_is_given_up_for_others(models: pathlib.Path) -> None:
    with engine(1, card_mib=20, working_mib=2, **IN_RAM, **FP32) as made:
        model, clip = locked_parts(made)
        texts = made.text(clip, "a seven"), made.text(clip, "")
        expected = sampled(made, model, *texts)
        other = made.checkpoint(OTHER)[0]
        management.unload_all_models()
        management.manager().expect([model])
        made.text(clip, "words")
        sent = early(made).size_bytes()
        assert 0 < sent <= 18 * MIB and made.card.used_bytes() <= 18 * MIB
        assert management.get_free_memory(made.card.device) == 20 * MIB - made.card.used_bytes(), "computing is not promised what it took"
        found = sampled(made, other, *texts)
        assert torch.isfinite(found).all() and early(made).size_bytes() < sent, "the other model needs the room"
        assert torch.equal(sampled(made, model, *texts), expected)
        del model, clip, other, texts


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_running_out_of_memory_drops_what_was_sent(models: pathlib.Path, error: RuntimeError) -> None:
    with engine(1, **IN_RAM, **FP32) as made:
        model, clip = locked_parts(made)
        texts = made.text(clip, "a seven"), made.text(clip, "")
        expected = sampled(made, model, *texts)
        management.unload_all_models()
        asked: list[int] = []
        made.card.refuses = lambda size, serial: asked.append(size) or (len(asked) > 5 and no_memory(error))
        management.manager().expect([model])
        made.text(clip, "words")
        assert 0 < early(made).size_bytes() < 0.5 * model.model_size(), "the card refused the rest"
        made.card.refuses = None
        refused = iter([True])
        made.card.refuses = lambda size, serial: size > 20_000 and next(refused, False) and no_memory(error)
        other = made.checkpoint(OTHER)[0]
        assert torch.isfinite(sampled(made, other, *texts)).all() and next(refused, None) is None
        made.card.refuses = None
        assert torch.equal(sampled(made, model, *texts), expected)
        management.manager().expect([model])
        management.unload_all_models()
        made.text(clip, "words")
        management.manager().expect_nothing()
        assert early(made).size_bytes() == 0
        del model, clip, texts, other
        made.forget()
        gc.collect()


def test_only_plain_tensors_are_sent() -> None:
    class OwnKind(torch.Tensor):
        """As node packs make for their formats: its own ``to`` keeps what it knows."""

    with engine(1) as made:
        locked = [torch.ones(4096).pin_memory() for _ in range(2)]
        weights = [torch.ones(4096), locked[0], locked[1].as_subclass(OwnKind), locked[0]]
        copies, module = EarlyCopies(made.card.device), torch.nn.Linear(1, 1)
        assert copies.send(module, weights, 1 << 20) == copies.size_bytes() == locked[0].nbytes
        assert copies.take(weights[0]) is None and copies.take(weights[2]) is None
        assert torch.equal(on_host(copies.take(locked[0])), locked[0]) and copies.take(locked[0]) is None
        del copies, locked, weights


@pytest.mark.parametrize("flags", [{"novram": True}, {"disable_async_offload": True}, {"disable_pinned_memory": True}])
def test_flags_that_keep_weights_at_home_send_none(models: pathlib.Path, flags: dict[str, bool]) -> None:
    with engine(1, **flags, **IN_RAM, **FP32) as made:
        model, clip = locked_parts(made)
        management.manager().expect([model])
        made.text(clip, "words")
        assert early(made) is None or early(made).size_bytes() == 0
        del model, clip
