"""Pinning models' memory in the background: budget, pieces, models that die meanwhile; with a fake runtime, and a real one on a GPU."""

import gc
import threading
import time
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_pinning import FakePins

from comfy.residency.arena_pinner import SMALLEST_BYTES, ArenaPinner, cut_pieces
from comfy.residency.pinning import CudaPins, PinLedger
from comfy.weight_files.fresh_memory import FreshMemory

MIB = 1 << 20
PAGE = 4096


class Model(torch.nn.Module):
    """Weights in one block of *sizes* MiB, each a tensor."""

    def __init__(self, *sizes):
        super().__init__()
        self.block = weakref.ref(block := FreshMemory(sum(sizes) * MIB).tensor.untyped_storage())
        whole, at = torch.empty(0, dtype=torch.uint8).set_(block), 0
        for number, size in enumerate(sizes):
            self.register_buffer(f"weight{number}", whole[at : at + size * MIB].view(torch.float32).view(-1, 1024))
            at += size * MIB


def request(pinner, model):
    return pinner.request(model, model.buffers())


@pytest.fixture
def make():
    """(pinner without a thread, ledger, backend) of a budget; all must be balanced in the end."""
    made = []

    def build(budget_bytes=1 << 40, piece_bytes=8 * MIB, **options):
        backend = FakePins()
        ledger = PinLedger(budget_bytes, backend)
        pinner = ArenaPinner(ledger, piece_bytes, **{"start_thread": None, **options})
        made.append((pinner, ledger, backend))
        return made[-1]

    yield build
    for pinner, ledger, backend in made:
        assert pinner.check() == []
        pinner.close()
        assert ledger.total_bytes() == 0 and not backend.ranges and pinner.check() == []


def test_a_model_is_pinned_in_pieces_that_cut_no_tensor(make):
    pinner, ledger, backend = make()
    model = Model(3, 3, 3, 20, 1)
    assert request(pinner, model) == 30 * MIB and ledger.total_bytes() == 0 == pinner.stats().pinned_bytes
    assert pinner.stats().waiting_bytes == 30 * MIB
    pinner.work_off()
    start = model.weight0.data_ptr()
    assert sorted(backend.ranges) == [start, start + 6 * MIB, start + 9 * MIB, start + 29 * MIB]
    assert ledger.total_bytes() == 30 * MIB == pinner.stats().pinned_bytes and pinner.stats().waiting_bytes == 0
    assert request(pinner, model) == 0, "a third use costs nothing"


def test_what_exceeds_the_budget_is_pinned_when_there_is_room_again(make):
    pinner, ledger, backend = make(budget_bytes=25 * MIB)
    first, second = Model(8, 8), Model(8, 8)
    request(pinner, first), request(pinner, second)
    pinner.work_off()
    assert pinner.stats().pinned_bytes == 24 * MIB and pinner.stats().refused_bytes == 8 * MIB and pinner.check() == []
    assert request(pinner, second) == 8 * MIB
    pinner.work_off()
    assert pinner.stats().refused_bytes == 8 * MIB
    del first
    assert request(pinner, second) == 8 * MIB
    pinner.work_off()
    assert pinner.stats().pinned_bytes == 16 * MIB and pinner.stats().refused_bytes == 0


def test_nothing_is_pinned_without_a_budget_or_after_closing(make):
    started = []
    pinner, ledger, _ = make(budget_bytes=0, start_thread=started.append)
    assert request(pinner, Model(8)) == 0 and not started and pinner.stats().models == 0
    pinner, ledger, _ = make()
    pinner.close()
    assert request(pinner, Model(8)) == 0 and pinner.stats().models == 0


def test_only_large_blocks_of_host_memory_are_pinned(make, tmp_path):
    pinner, *_ = make()
    mapped = torch.from_file(str(tmp_path / "mapped"), shared=True, size=SMALLEST_BYTES, dtype=torch.uint8)
    small, other = torch.zeros(SMALLEST_BYTES - 1, dtype=torch.uint8), torch.empty(1 << 30, device="meta")
    assert pinner.request(torch.nn.Module(), [mapped, small, other]) == 0 and pinner.stats().models == 0


def test_memory_is_unpinned_before_it_is_freed(make):
    pinner, ledger, backend = make()
    model = Model(8, 8)
    block, freed_while_pinned = model.block, []
    unpin = backend.unpin
    backend.unpin = lambda address: freed_while_pinned.append(block() is None) or unpin(address)
    request(pinner, model)
    pinner.work_off()
    del model
    gc.collect()
    assert block() is not None and len(backend.ranges) == 2
    pinner.work_off()
    assert block() is None and not backend.ranges and freed_while_pinned == [False, False]
    assert pinner.stats().models == pinner.stats().blocks == 0


def test_a_model_that_dies_before_its_turn_is_never_pinned(make):
    pinner, ledger, backend = make()
    model = Model(8, 8)
    block = model.block
    request(pinner, model)
    del model
    pinner.work_off()
    assert block() is None and not backend.ranges


def test_a_model_that_is_evicted_meanwhile_stops_the_work_after_the_piece(make):
    """The thread is held inside the first registration while the model dies."""
    entered, go_on = threading.Event(), threading.Event()
    pinner, ledger, backend = make(start_thread=lambda run: threading.Thread(target=run, daemon=True).start())
    plain = backend.pin

    def pin(address, size_bytes):
        entered.set()
        assert go_on.wait(20)
        return plain(address, size_bytes)

    backend.pin = pin
    model = Model(8, 8, 8, 8)
    block, registered = model.block, []
    backend.unpin = lambda address, unpin=backend.unpin: registered.append(address) or unpin(address)
    request(pinner, model)
    assert entered.wait(20)
    del model
    gc.collect()
    go_on.set()
    assert pinner.settle(20) and block() is None
    assert len(registered) == 1 and ledger.total_bytes() == 0


def test_a_block_shared_by_two_models_stays_pinned_until_both_are_gone(make):
    pinner, ledger, backend = make()
    one, other = Model(8), torch.nn.Module()
    request(pinner, one)
    pinner.request(other, one.buffers())
    pinner.work_off()
    assert pinner.stats().blocks == 1 and pinner.stats().models == 2
    pinner.release(other)
    pinner.work_off()
    assert ledger.total_bytes() == 8 * MIB
    del one
    pinner.work_off()
    assert ledger.total_bytes() == 0


def test_a_released_model_can_be_asked_for_again(make):
    pinner, ledger, backend = make()
    model = Model(8)
    request(pinner, model)
    pinner.release(model), pinner.release(model)
    request(pinner, model)
    pinner.work_off()
    assert ledger.total_bytes() == 8 * MIB and pinner.stats().models == 1
    pinner.release(model)
    pinner.work_off()
    assert ledger.total_bytes() == 0 and request(pinner, model) == 8 * MIB


def test_a_refusal_of_the_runtime_ends_the_attempt_not_the_thread(make, caplog):
    pinner, ledger, backend = make()
    model = Model(8, 8)
    backend.refuse = True
    request(pinner, model)
    pinner.work_off()
    assert ledger.total_bytes() == 0 and pinner.stats().refused_bytes == 16 * MIB and "could not page-lock" in caplog.text
    backend.refuse = False
    request(pinner, model)
    pinner.work_off()
    assert ledger.total_bytes() == 16 * MIB


def test_closing_unpins_what_still_lives_and_ends_the_thread(make):
    threads = []
    pinner, ledger, backend = make(start_thread=lambda run: threads.append(threading.Thread(target=run)) or threads[0].start())
    models = [Model(8, 8) for _ in range(3)]
    for model in models:
        request(pinner, model)
    assert pinner.settle(20)
    pinner.close()
    threads[0].join(20)
    assert not threads[0].is_alive() and ledger.total_bytes() == 0 and pinner.settle(0)
    assert all(model.weight0.numel() for model in models)


def test_a_finalizer_never_waits_for_a_lock(make):
    """A model dies, by garbage collection, in a thread that is inside the pinner's and the ledger's critical sections."""
    pinner, ledger, backend = make()
    model = Model(8)
    model.itself = model
    block = model.block
    request(pinner, model)
    pinner.work_off()
    with pinner._lock, ledger._lock:
        del model
        gc.collect()
    pinner.work_off()
    assert block() is None and ledger.total_bytes() == 0


@given(choose=st.randoms(use_true_random=False))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_accounts_balance_after_many_random_requests_and_deaths(make, choose):
    pinner, ledger, backend = make(budget_bytes=60 * MIB, start_thread=lambda run: threading.Thread(target=run, daemon=True).start())
    plain = backend.pin
    backend.pin = lambda address, size_bytes: choose.random() < 0.9 and plain(address, size_bytes)
    alive = []
    for _ in range(120):
        action = choose.random()
        if action < 0.4 and len(alive) < 6:
            alive.append(Model(*choose.choices([1, 3, 8, 9], k=choose.randrange(1, 4))))
        elif action < 0.8 and alive:
            request(pinner, choose.choice(alive))
        elif action < 0.85 and alive:
            pinner.release(choose.choice(alive))
        elif alive:
            alive.pop(choose.randrange(len(alive)))
        assert 0 <= ledger.total_bytes() <= 60 * MIB
    blocks = [model.block for model in alive]
    alive.clear()
    assert pinner.settle(20) and pinner.check() == []
    assert ledger.total_bytes() == 0 == len(backend.ranges) and pinner.stats().blocks == 0
    assert [block() for block in blocks] == [None] * len(blocks)


def test_pieces_are_cut_where_a_tensor_is_the_first_in_a_page():
    base = 10 * PAGE
    assert cut_pieces(base, 100 * PAGE, [], 30 * PAGE) == ((base, 100 * PAGE),)
    ten = [(base + number * 10 * PAGE, 10 * PAGE) for number in range(10)]
    assert [size // PAGE for _, size in cut_pieces(base, 100 * PAGE, ten, 30 * PAGE)] == [30, 30, 30, 10]
    unaligned = [(base, 10 * PAGE + 64), (base + 10 * PAGE + 64, 30 * PAGE), (base + 50 * PAGE, 50 * PAGE)]
    assert [size // PAGE for _, size in cut_pieces(base, 100 * PAGE, unaligned, 30 * PAGE)] == [50, 50]
    inside = [(base + number * 10 * PAGE + 72, 9 * PAGE) for number in range(10)]
    pieces = cut_pieces(base, 100 * PAGE, inside, 30 * PAGE)
    assert [size // PAGE for _, size in pieces] == [30, 30, 30, 10] and all(start % PAGE == 0 for start, _ in pieces)
    overlapping = [(base, 60 * PAGE), (base + 20 * PAGE, 20 * PAGE), (base + 70 * PAGE, 30 * PAGE)]
    assert [size // PAGE for _, size in cut_pieces(base, 100 * PAGE, overlapping, 30 * PAGE)] == [70, 30]
    for start, size in cut_pieces(base, 100 * PAGE, ten, 30 * PAGE):
        assert start % PAGE == 0 and size > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_real_runtime_takes_pieces_gives_them_back_and_copies_at_full_rate():
    """Reclaiming a pinned model at no less than 85 % of the rate of torch's own pinned memory, in the same run."""
    pinner = ArenaPinner(ledger := PinLedger(8 << 30, CudaPins()), 256 * MIB)
    model = Model(*[64] * 32)
    assert request(pinner, model) == 2 << 30
    for _ in range(1000):
        if pinner.stats().waiting_bytes == 0:
            break
        time.sleep(0.02)
    assert pinner.stats().pinned_bytes == 2 << 30 and all(weight.is_pinned() for weight in model.buffers())
    target, best = torch.empty(2 << 28, device="cuda"), torch.empty(2 << 28).pin_memory()

    def seconds(copies):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for out, source in copies:
            out.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        return time.perf_counter() - started

    parts = list(zip(target.view(32, -1, 1024), model.buffers()))
    pairs = [(seconds([(target, best)]), seconds(parts)) for _ in range(6)][1:]
    assert all(torch.equal(out.cpu(), source) for out, source in parts[:2])
    assert sorted(reference / own for reference, own in pairs)[2] >= 0.85
    pinner.close()
    assert ledger.total_bytes() == 0 and not model.weight0.is_pinned()
