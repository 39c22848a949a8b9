"""Parts that measure how weights get to the card and back."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.gpu.bench import GB, Bench
from benchmarks.gpu.models import input_shape, load, load_on_card, step
from benchmarks.gpu.results import Figure
from comfy.residency.devices import WORKING_BYTES

RECLAIM_BOUND, RECLAIM_GOAL = 0.85, 0.95
ROUNDS = 4


def locked_rate(bench: Bench) -> float:
    """Bytes per second from page-locked memory, in one copy."""
    return _copy_rate(bench, torch.empty(bench.block_bytes(), dtype=torch.uint8).pin_memory())


def _copy_rate(bench: Bench, source: torch.Tensor) -> float:
    target = torch.empty(source.shape, dtype=source.dtype, device=bench.device)
    return source.nbytes / bench.median(lambda: target.copy_(source, non_blocking=True))


def rates(bench: Bench) -> dict[str, Figure]:
    """Host to card, page-locked and pageable."""
    pageable = torch.ones(bench.block_bytes(), dtype=torch.uint8)
    return {
        "page-locked memory to the card": Figure(locked_rate(bench) / GB, "GB/s"),
        "pageable memory to the card": Figure(_copy_rate(bench, pageable) / GB, "GB/s"),
    }


def page_locking(bench: Bench) -> dict[str, Figure]:
    """What registering memory costs, with pages that are there."""
    from comfy.residency.pinning import CudaPins

    block, pins = torch.ones(bench.block_bytes(), dtype=torch.uint8), CudaPins()
    started_s = time.perf_counter()
    done = pins.pin(block.data_ptr(), block.nbytes)
    locked_s = time.perf_counter()
    given_back = pins.unpin(block.data_ptr())
    ended_s = time.perf_counter()
    if not (done and given_back):
        raise RuntimeError(f"the runtime did not lock {block.nbytes} bytes, or did not give them back")
    per_gb = GB / block.nbytes
    return {
        "page-locking": Figure((locked_s - started_s) * per_gb, "s/GB", at_most=1.0, goal=0.2),
        "giving it back": Figure((ended_s - locked_s) * per_gb, "s/GB"),
    }


def host_copies(patcher: Any) -> list[tuple[int, int]]:
    """Which objects the host's weights are, and where they lie."""
    return [(id(weight), weight.data_ptr()) for weight in patcher.pristine_weights()]


def reclaim(bench: Bench) -> dict[str, Figure]:
    """Loading from RAM against the rate of one large page-locked copy, and eviction."""
    patcher = load(bench)[0]
    load_on_card(bench, patcher)
    import comfy.model_management as management

    pinner = management.manager().pinner
    before, own = host_copies(patcher), patcher.model_size()
    bench.unload()
    unlocked_s = bench.median(lambda: _return(bench, patcher), 3)
    pinner.request(patcher.model, patcher.pristine_weights())
    locked_bytes = bench.locked()
    bench.unload()
    best_rate = locked_rate(bench)
    reclaimed_s, evicted_s = [], []
    for _ in range(ROUNDS):
        reclaimed_s.append(bench.seconds(lambda: load_on_card(bench, patcher)))
        evicted_s.append(bench.seconds(lambda: management.unload_all_models()))
    kept = dict(host_copies(patcher))
    copied_back = sum(weight.nbytes for (one, place), weight in zip(before, patcher.pristine_weights()) if kept.get(one) != place)
    return {
        "weights that come back": Figure(own / GB, "GB"),
        "share of them that is page-locked": Figure(min(1.0, locked_bytes / own)),
        "rate of reclaiming": Figure(own / min(reclaimed_s) / GB, "GB/s"),
        "rate of reclaiming against one page-locked copy": Figure(own / min(reclaimed_s) / best_rate, "", RECLAIM_BOUND, goal=RECLAIM_GOAL),
        "rate of reclaiming before memory is page-locked": Figure(own / unlocked_s / GB, "GB/s"),
        "eviction": Figure(min(evicted_s), "s"),
        "bytes copied back by eviction": Figure(copied_back, "B", at_most=0, is_exact=True),
    }


def _return(bench: Bench, patcher: Any) -> None:
    import comfy.model_management as management

    load_on_card(bench, patcher)
    management.unload_all_models()


def first_step(bench: Bench) -> dict[str, Figure]:
    """From asking the loader for a model that the RAM model cache holds to the end of its first step."""
    import comfy.model_management as management

    def prompt() -> None:
        patcher = load(bench)[0]
        load_on_card(bench, patcher)
        step(bench, patcher)()

    first_s = bench.seconds(prompt)
    bench.unload()
    bench.locked()
    misses = management.ram_cache().stats().counters.misses
    again_s = bench.seconds(prompt)
    patcher = load(bench)[0]
    resident_s = bench.median(step(bench, patcher))
    copy_s = patcher.model_size() / locked_rate(bench)
    return {
        "the first time, from the file": Figure(first_s, "s"),
        "a hit, to the end of the first step": Figure(again_s, "s"),
        "that against copy and step alone": Figure(again_s / (copy_s + resident_s), "", at_most=1.6, goal=1.25),
        "models read again": Figure(management.ram_cache().stats().counters.misses - misses, "", at_most=0, is_exact=True),
    }


def sending_early(bench: Bench) -> dict[str, Figure]:
    """Texts and the first step, with the model's page-locked weights sent while the texts are encoded, and without."""
    import comfy.model_management as management

    patcher, clip, _ = load(bench)
    manager = management.manager()
    for part in (patcher, clip.patcher):
        manager.pinner.request(part.model, part.pristine_weights())
    bench.locked()
    tokens, early = clip.tokenize("a photograph of a lighthouse at dusk"), manager.devices.find(bench.device).early
    sent: list[int] = []

    def prompt(expected: list[Any]) -> None:
        manager.expect(expected)
        clip.encode_from_tokens_scheduled(tokens)
        sent.append(0 if early is None else early.size_bytes())
        load_on_card(bench, patcher)
        step(bench, patcher)()

    def alone(expected: list[Any]) -> float:
        bench.unload()
        return bench.seconds(lambda: prompt(expected))

    alone([])
    without_s = min(alone([]) for _ in range(ROUNDS))
    with_s = min(alone([patcher]) for _ in range(ROUNDS))
    manager.expect_nothing()
    return {
        "texts and first step, all copied in its load": Figure(without_s, "s"),
        "texts and first step, sent early": Figure(with_s, "s"),
        "the second against the first": Figure(with_s / without_s, "", at_most=1.02, goal=0.9),
        "share of the weights sent before the load": Figure(sent[-1] / patcher.model_size(), "", at_least=0.9, is_exact=True),
    }


def switching(bench: Bench) -> dict[str, Figure]:
    """Two models in turn on a card that is said to hold one."""
    import comfy.model_management as management

    patcher = load(bench)[0]
    size, computing = patcher.model_size(), max(WORKING_BYTES, patcher.memory_required(input_shape(bench)))
    device = management.manager().devices.find(bench.device)
    reserved, rounds = device.reserved_bytes, 4 if bench.pretends else 2 * ROUNDS
    counters = management.ram_cache().stats().counters
    switches: list[float] = []
    del patcher
    made_room = 0
    try:
        device.reserved_bytes = int(max(reserved, device.free_bytes() - 1.15 * size - computing))
        for turn in range(rounds):
            misses = counters.misses
            patcher = load(bench, turn % 2)[0]
            switches.append(bench.seconds(lambda one=patcher: load_on_card(bench, one)))
            others = [one for one in management.loaded_models() if one.model is not patcher.model and one.load_device == bench.device]
            made_room += all(other.loaded_size() < 0.5 * size for other in others)
            step(bench, patcher)()
            bench.synchronize()
            del patcher
            bench.locked()
            read_again = counters.misses - misses
    finally:
        device.reserved_bytes = reserved
    return {
        "a switch at first": Figure(switches[0], "s"),
        "a switch later": Figure(min(switches[2:]), "s"),
        "its rate against one page-locked copy": Figure(
            size / min(switches[2:]) / locked_rate(bench), "", at_least=0.7, goal=RECLAIM_BOUND
        ),
        "models read in the last switch": Figure(read_again, "", at_most=0, is_exact=True),
        "switches that made room": Figure(made_room, "", at_least=rounds, is_exact=True),
    }
