"""The RAM model cache under threads, random failures and collections at bad moments."""

import contextlib
import gc
import random
import threading
import weakref

import pytest
from ram_cache_fakes import FakeLoadedModel, FakeModule, Key, Owner, patcher

from comfy.ram_model_cache.cache import CacheSettings, Loaded, RamModelCache
from comfy.ram_model_cache.flights import Flights

A, B = Key("A"), Key("B")
JOIN_S = 30


def make(owner, cap=100, **settings):
    return RamModelCache(
        CacheSettings(cap, **{"headroom_bytes": 0, **settings}), owner.hooks(), clock=lambda: owner.now, start_thread=owner.started.append
    )


def together(*actions):
    """Run *actions* in threads that start at one moment; raises what any of them raised."""
    barrier, errors = threading.Barrier(len(actions)), []

    def run(action):
        try:
            barrier.wait(JOIN_S)
            action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
        assert not thread.is_alive(), "a thread is stuck"
    if errors:
        raise errors[0]


def test_one_load_serves_everyone_who_wants_it_at_once():
    cache, loads, models = make(Owner()), [], []

    def load(missing):
        loads.append(missing)
        return {A: patcher(40)}

    together(*[lambda: models.append(cache.fetch({A: 40}, load)[A]) for _ in range(8)])
    assert len(loads) == 1
    assert len({id(model.model) for model in models}) == 1
    assert cache.check() == []


def test_one_load_serves_everyone_even_when_the_model_is_too_big_to_keep():
    cache, loads, models = make(Owner(), cap=10), [], []
    together(*[lambda: models.append(cache.fetch({A: 40}, lambda missing: loads.append(1) or {A: patcher(40)})[A]) for _ in range(8)])
    assert len(loads) == 1
    assert cache.check() == []


def test_waiters_of_a_failed_load_try_for_themselves():
    cache, attempts, models, failures = make(Owner()), [], [], []

    def load(missing):
        attempts.append(missing)
        if len(attempts) == 1:
            raise KeyboardInterrupt
        return {A: patcher(40)}

    def want():
        try:
            models.append(cache.fetch({A: 40}, load)[A])
        except KeyboardInterrupt:
            failures.append(1)

    together(*[want] * 6)
    assert (len(attempts), len(failures), len(models)) == (2, 1, 5)
    assert cache.check() == []
    assert cache._flights.busy() == 0


def test_waiting_for_a_load_can_be_interrupted():
    owner = Owner()
    cache, inside, leave = make(owner), threading.Event(), threading.Event()

    def load(missing):
        inside.set()
        assert leave.wait(JOIN_S)
        return {A: patcher(40)}

    loader = threading.Thread(target=lambda: cache.fetch({A: 40}, load))
    loader.start()
    assert inside.wait(JOIN_S)
    owner.interrupt = InterruptedError("stop")
    with pytest.raises(InterruptedError):
        cache.fetch({A: 40}, load)
    leave.set()
    loader.join(JOIN_S)
    assert cache._flights.busy() == 0


def test_flights_taken_in_opposite_orders_do_not_deadlock():
    flights = Flights(lambda: None)
    halfway = threading.Barrier(2)

    def nested(outer, inner):
        with flights.alone((outer,)):
            halfway.wait(JOIN_S)
            with flights.alone((inner,)):
                pass

    together(lambda: nested(A, B), lambda: nested(B, A))
    assert flights.busy() == 0


def test_nested_flights_of_one_thread_are_given_back_level_by_level():
    flights = Flights(lambda: None)
    with flights.alone((A,)):
        with flights.alone((A, B)):
            assert flights.busy() == 2
        assert flights.busy() == 1
        with flights.if_free(A) as alone:
            assert alone
    assert flights.busy() == 0


def test_restore_leaves_a_key_alone_that_someone_is_loading():
    owner = Owner()
    cache = make(owner)
    cache.fetch({A: 40}, lambda missing: {A: patcher(40)})
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with cache.single_flight(A):
            inside.set()
            assert leave.wait(JOIN_S)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(JOIN_S)
    cache.safe_point()
    assert owner.restored == []
    leave.set()
    holder.join(JOIN_S)
    cache.safe_point()
    assert len(owner.restored) == 1


def test_critical_section_of_one_thread_holds_up_drops_of_another():
    cache, modules = make(Owner()), []
    modules.append(weakref.ref(cache.fetch({A: 40}, lambda missing: {A: patcher(40)})[A].model))
    with cache.critical_section():
        together(cache.clear)
        assert modules[0]() is not None
    assert modules[0]() is None


def test_critical_section_waits_for_a_drop_in_progress():
    owner = Owner()
    order, dropping, go_on = [], threading.Event(), threading.Event()

    def forget(loaded_model):
        dropping.set()
        assert go_on.wait(JOIN_S)
        order.append("dropped")

    owner.forget = forget
    cache = make(owner)
    model = cache.fetch({A: 40}, lambda missing: {A: patcher(40)})[A]
    loaded = FakeLoadedModel(model.parent)
    cache.reclaim(loaded)
    del model

    def enter():
        with cache.critical_section():
            order.append("entered")

    dropper = threading.Thread(target=cache.clear)
    dropper.start()
    assert dropping.wait(JOIN_S)
    enterer = threading.Thread(target=enter)
    enterer.start()
    go_on.set()
    dropper.join(JOIN_S)
    enterer.join(JOIN_S)
    assert order == ["dropped", "entered"]


def test_critical_section_inside_a_drop_of_the_same_thread_does_not_wait_for_itself():
    owner = Owner()
    cache = make(owner)

    def forget(loaded_model):
        with cache.critical_section():
            owner.forgotten.append(loaded_model)

    object.__setattr__(cache._drops._hooks, "forget_loaded", forget)
    model = cache.fetch({A: 40}, lambda missing: {A: patcher(40)})[A]
    loaded = FakeLoadedModel(model.parent)
    cache.reclaim(loaded)
    del model
    cache.clear()
    assert owner.forgotten == [loaded]


def test_lookup_and_eviction_at_once_never_hand_out_a_model_that_is_gone():
    owner = Owner()
    cache = make(owner)
    for _ in range(200):
        cache.fetch({A: 40}, lambda missing: {A: patcher(40)})
        found = []
        together(lambda found=found: found.append(cache.fetch({A: 40}, lambda missing: {A: patcher(40)})[A]), cache.clear)
        assert found[0].parent is not None
        assert found[0].model.tensors
        assert cache.check() == []


def test_collections_everywhere_inside_operations_take_no_lock():
    """Every allocation may collect: dead clones in cycles end inside the cache's own operations."""
    owner = Owner()
    cache = make(owner)
    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for index in range(60):
            model = cache.fetch({A: 40}, lambda missing: {A: patcher(40)})[A]
            circle = [model]
            circle.append(circle)
            del model, circle
            with cache.critical_section():
                cache.tick()
            if index % 7 == 0:
                cache.clear()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert cache.check() == []


class Failure(Exception):
    """What the random owner raises."""


class Machine:
    """Random operations on a cache with random failures, and a record of what lives."""

    def __init__(self, seed):
        self.rng, self.owner = random.Random(seed), Owner()
        self.cache = make(self.owner, cap=60, headroom_bytes=50, ttl_s=200)
        self.keys = [Key(f"m{index}", [f"/m{index}"]) for index in range(12)]
        self.held, self.loaded, self.every = [], [], []
        object.__setattr__(self.cache._hooks, "forget_loaded", self.forget)

    def forget(self, loaded_model):
        loaded_model.detached += 1
        self.loaded = [one for one in self.loaded if one is not loaded_model]
        if self.rng.random() < 0.1:
            raise Failure

    def load(self, missing):
        if self.rng.random() < 0.2:
            raise Failure
        return {key: Loaded(patcher(10 * (1 + index)), self.rng.random() * 9) for index, key in enumerate(missing)}

    def fetch(self):
        wanted = self.rng.sample(self.keys, self.rng.randint(1, 3))
        self.held += self.cache.fetch({key: 30 for key in wanted}, self.load, hold=self.rng.random() < 0.05).values()  # noqa: C420

    def clone(self):
        if self.held:
            self.held.append(self.rng.choice(self.held).clone())

    def let_go(self):
        self.rng.shuffle(self.held)
        del self.held[2:]

    def to_device(self):
        if self.held:
            one = FakeLoadedModel(self.rng.choice(self.held))
            self.loaded.append(one)
            self.every.append(one)
            self.cache.reclaim(one)

    def off_device(self):
        with self.cache.critical_section():
            if self.loaded:
                one = self.loaded.pop(self.rng.randrange(len(self.loaded)))
                one.detached += 1
                self.cache.retain(one)

    def pressure(self):
        self.owner.available = self.rng.choice([10, 60, 1 << 40])
        self.cache.tick()

    def safe_point(self):
        self.owner.fail_restore = self.rng.random() < 0.1
        self.cache.safe_point()

    def step(self):
        self.owner.now += self.rng.random() * 20
        self.owner.pending = self.rng.sample([path for key in self.keys for path in key.paths], 2)
        action = self.rng.choices(
            [
                self.fetch,
                self.clone,
                self.let_go,
                self.to_device,
                self.off_device,
                self.pressure,
                self.safe_point,
                self.cache.clear,
                self.unhold,
            ],
            [30, 5, 30, 10, 10, 3, 10, 1, 1],
        )[0]
        with contextlib.suppress(Failure):
            action()

    def unhold(self):
        for key in self.keys:
            self.cache.set_held(key, False)


def test_cycles_with_random_failures_end_where_they_began(caplog):
    caplog.set_level("CRITICAL")
    for seed in range(4):
        check_random_cycles(seed)


def check_random_cycles(seed):
    gc.collect()
    before, machine = len(FakeModule.alive), Machine(seed)
    for cycle in range(2500):
        machine.step()
        assert not any(one.detached for one in machine.loaded)
        if cycle % 50 == 0:
            assert machine.cache.check() == []
    machine.held.clear()
    machine.loaded.clear()
    machine.cache.close()
    stats = machine.cache.stats()
    assert (stats.kept_bytes, stats.reserved_bytes, stats.lent_bytes, stats.doomed_bytes, stats.kept, stats.lent) == (0, 0, 0, 0, 0, 0)
    assert machine.cache.check() == []
    assert not machine.cache._table.clones.ids()
    assert machine.cache._flights.busy() == 0
    assert stats.counters.high_water_bytes <= 60
    assert {one.detached for one in machine.every} == {1}
    assert min(stats.counters.hits, stats.counters.failures, sum(stats.counters.evictions.values())) > 100
    assert len(FakeModule.alive) == before


def test_loaded_models_are_detached_at_most_once_over_many_evictions():
    owner = Owner()
    cache = make(owner)
    every = []
    for index in range(300):
        model = cache.fetch({A: 40}, lambda missing: {A: patcher(40)})[A]
        loaded = FakeLoadedModel(model.parent)
        every.append(loaded)
        cache.reclaim(loaded)
        if index % 3 == 0:
            cache.retain(loaded)
        del model
        if index % 2 == 0:
            cache.clear()
    cache.close()
    assert {loaded.detached for loaded in every} <= {0, 1}
    assert sum(loaded.detached for loaded in every) > 100


def test_threads_that_load_evict_and_move_at_once_leave_the_accounts_right():
    owner = Owner()
    cache, keys = make(owner, cap=120), [Key(f"m{index}") for index in range(6)]

    def work(seed):
        rng = random.Random(seed)
        for _ in range(150):
            model = cache.fetch(
                {key: 40 for key in rng.sample(keys, 2)},  # noqa: C420
                lambda missing: {key: patcher(40) for key in missing},
            ).popitem()[1]
            one = FakeLoadedModel(model)
            cache.reclaim(one)
            with cache.critical_section():
                cache.retain(one)
            del model
            rng.choice([cache.tick, cache.safe_point, cache.clear, cache.stats, cache.check])()

    together(*[lambda seed=seed: work(seed) for seed in range(4)])
    assert cache.check() == []
    cache.close()
    gc.collect()
    assert cache.stats().lent == 0
