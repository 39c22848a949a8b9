"""Faults that programs make on cards, made on purpose: each is caught."""

import gc
from collections.abc import Iterator

import pytest
import torch
from pretend import Machine, Race, pretend_cards

MIB = 1 << 20


@pytest.fixture
def machine() -> Iterator[Machine]:
    with torch.inference_mode(), pretend_cards(1, 64 * MIB) as made:
        yield made


def locked(size: int = 1024) -> torch.Tensor:
    return torch.zeros(size).pin_memory()


def test_mixed_devices(machine: Machine) -> None:
    layer = torch.nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match="same device"):
        layer(torch.zeros(1, 4, device="cuda"))


def test_numpy_of_a_card_tensor(machine: Machine) -> None:
    with pytest.raises(TypeError, match="to numpy"):
        torch.zeros(2, device="cuda").numpy()


def test_generator_of_another_device(machine: Machine) -> None:
    with pytest.raises(RuntimeError, match="device type for generator"):
        torch.rand(2, device="cuda", generator=torch.Generator())


def test_forgotten_copy_back(machine: Machine) -> None:
    kept = [torch.zeros(MIB, device="cuda")]
    assert machine.cards[0].used_bytes() == 4 * MIB
    kept.clear()
    gc.collect()
    assert machine.cards[0].used_bytes() == 0


def test_unbounded_allocation(machine: Machine) -> None:
    kept = []
    with pytest.raises(torch.OutOfMemoryError):
        while True:
            kept.append(torch.zeros(MIB, device="cuda"))
    assert len(kept) == 16 and machine.cards[0].refused == 1
    kept.clear()
    torch.zeros(8 * MIB, device="cuda")


def test_running_out_at_a_chosen_allocation(machine: Machine) -> None:
    start = machine.cards[0].serial
    machine.cards[0].refuses = lambda size, serial: serial == start + 2
    torch.zeros(1, device="cuda")
    with pytest.raises(torch.OutOfMemoryError, match="on purpose"):
        torch.zeros(1, device="cuda")
    torch.zeros(1, device="cuda")


def test_page_locking_twice_or_giving_back_what_is_not_locked(machine: Machine) -> None:
    runtime, host = torch.cuda.cudart(), torch.zeros(4096)
    assert runtime.cudaHostRegister(host.data_ptr(), 4096, 1) == 0
    assert host[:16].is_pinned() and not torch.zeros(16).is_pinned()
    assert runtime.cudaHostRegister(host.data_ptr() + 1024, 4096, 1) != 0
    assert runtime.cudaHostUnregister(host.data_ptr() + 1024) != 0
    assert len(machine.all_faults()) == 2
    assert runtime.cudaHostUnregister(host.data_ptr()) == 0 and not machine.page_locks.ranges


def test_reading_before_the_copy_is_there(machine: Machine) -> None:
    source, stream = locked(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        fetched = source.to("cuda", non_blocking=True)
    with pytest.raises(Race, match="reads memory"):
        fetched + 1
    torch.cuda.current_stream().wait_stream(stream)
    fetched + 1


def test_an_event_recorded_before_the_copy_says_nothing(machine: Machine) -> None:
    source, stream, event = locked(), torch.cuda.Stream(), torch.cuda.Event()
    event.record(stream)
    with torch.cuda.stream(stream):
        fetched = source.to("cuda", non_blocking=True)
    torch.cuda.current_stream().wait_event(event)
    with pytest.raises(Race):
        fetched + 1
    event.record(stream)
    torch.cuda.current_stream().wait_event(event)
    fetched + 1


def test_overwriting_a_buffer_that_is_still_read(machine: Machine) -> None:
    source, stream = locked(), torch.cuda.Stream()
    buffer = torch.zeros(1024, device="cuda")
    stream.wait_stream(torch.cuda.current_stream())
    buffer + 1
    with torch.cuda.stream(stream), pytest.raises(Race, match="writes memory"):
        buffer.copy_(source, non_blocking=True)
    used = torch.cuda.current_stream().record_event()
    stream.wait_event(used)
    with torch.cuda.stream(stream):
        buffer.copy_(source, non_blocking=True)


def test_freeing_what_another_stream_uses(machine: Machine) -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        fetched = torch.zeros(1024, device="cuda")
    torch.cuda.current_stream().wait_stream(stream)
    fetched + 1
    del fetched
    assert any("were freed while" in fault for fault in machine.all_faults())


def test_freeing_what_another_stream_uses_is_fine_when_it_was_told(machine: Machine) -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        fetched = torch.zeros(1024, device="cuda")
    torch.cuda.current_stream().wait_stream(stream)
    fetched + 1
    fetched.record_stream(torch.cuda.current_stream())
    del fetched
    assert machine.all_faults() == []


def test_reading_on_the_host_before_the_copy_back_is_there(machine: Machine) -> None:
    fetched = torch.ones(1024, device="cuda").to("cpu", non_blocking=True)
    with pytest.raises(Race):
        fetched.sum()
    torch.cuda.synchronize()
    assert fetched.sum() == 1024


def test_what_torch_composes_of_others_is_looked_at_as_well(machine: Machine) -> None:
    weight = torch.ones(4, 4, device="cuda")
    back = torch.empty(4, 4).pin_memory()
    assert torch.matmul(torch.ones(4, 4), back).shape == (4, 4)
    back.copy_(weight, non_blocking=True)
    with pytest.raises(Race):
        torch.matmul(torch.ones(4, 4), back)
    with pytest.raises(RuntimeError, match="same device"):
        torch.matmul(weight, torch.ones(4, 4))
    torch.cuda.synchronize()
    assert torch.matmul(torch.ones(4, 4), back).sum() == 64


def test_changing_host_memory_that_is_still_copied_from(machine: Machine) -> None:
    source = locked()
    source.to("cuda", non_blocking=True)
    with pytest.raises(Race, match="writes memory"):
        source.add_(1)
    torch.cuda.current_stream().synchronize()
    source.add_(1)


def test_copies_are_counted_by_how_they_were_made(machine: Machine) -> None:
    counters = machine.cards[0].counters
    locked().to("cuda", non_blocking=True)
    assert counters["h2d copies"] == 1 and counters["h2d blocking"] == 0 and counters["h2d locked bytes"] == 4096
    torch.zeros(1024).to("cuda", non_blocking=True)
    assert counters["h2d blocking"] == 1 and counters["h2d pageable bytes"] == 4096
    locked().to("cuda", torch.float16, non_blocking=True)
    assert counters["h2d blocking"] == 2 and counters["h2d bytes converted on the host"] == 4096


def test_reading_values_is_counted_as_waiting(machine: Machine) -> None:
    card, counters = torch.ones(4, device="cuda"), machine.cards[0].counters
    for wait in (lambda: card[0].item(), lambda: card.cpu(), lambda: card.nonzero(), lambda: card[card > 0], torch.cuda.synchronize):
        before = counters["syncs"]
        wait()
        assert counters["syncs"] == before + 1


def test_a_trace_shows_what_overlaps(machine: Machine) -> None:
    scheduler, stream = machine.scheduler, torch.cuda.Stream()
    source, large = locked(8 * MIB // 4), torch.zeros(4 * MIB, device="cuda")
    copying, computing = {stream.queue.number}, {machine.cards[0].default.number}
    for together in (True, False):
        scheduler.trace = []
        with torch.cuda.stream(stream):
            fetched = source.to("cuda", non_blocking=True)
        if not together:
            stream.synchronize()
        for _ in range(10):
            large.add_(1)
        torch.cuda.synchronize()
        fetched.record_stream(torch.cuda.current_stream())
        assert (scheduler.overlap_us(copying, computing) > 0) is together


def test_indices_of_the_card_are_not_waited_for(machine: Machine) -> None:
    card, rows = torch.ones(4, device="cuda"), torch.tensor([0, 2], device="cuda")
    before = machine.cards[0].counters["syncs"]
    card[rows]
    assert machine.cards[0].counters["syncs"] == before
