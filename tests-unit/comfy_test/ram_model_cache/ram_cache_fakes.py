"""Models, patchers and an owner without torch, for the tests of the RAM model cache."""

import weakref

from comfy.ram_model_cache.cache import CacheSettings, Loaded, OwnerHooks, RamModelCache


class FakeStorage:
    """Memory by number."""

    def __init__(self, pointer, size):
        self.pointer, self.size, self.filename = pointer, size, None

    def data_ptr(self):
        return self.pointer

    def nbytes(self):
        return self.size


class FakeDevice:
    """A device as tensors name it."""

    def __init__(self, kind):
        self.type, self.index = kind, None


class FakeTensor:
    """A tensor with a storage on a device."""

    pointers = 1000

    def __init__(self, size, kind="cpu", storage=None):
        FakeTensor.pointers += 1
        self.storage = storage or FakeStorage(FakeTensor.pointers, size)
        self.device = FakeDevice(kind)

    def untyped_storage(self):
        return self.storage


class FakeModule:
    """A module of some tensors."""

    alive = weakref.WeakSet()

    def __init__(self, *tensors):
        self.tensors = list(tensors)
        FakeModule.alive.add(self)

    def parameters(self):
        return iter(self.tensors)


class FakePatcher:
    """The part of a patcher that the cache uses."""

    def __init__(self, model, dynamic=False, pinned=0):
        self.model, self.parent, self.backup = model, None, {}
        self.dynamic, self.pinned = dynamic, pinned

    def clone(self):
        twin = type(self)(self.model, self.dynamic, self.pinned)
        twin.parent, twin.backup = self, self.backup
        return twin

    def is_dynamic(self):
        return self.dynamic

    def pinned_memory_size(self):
        return self.pinned


class FakeVAE:
    """A wrapper without ``clone``."""

    def __init__(self, patcher):
        self.patcher, self.first_stage_model = patcher, patcher.model


class FakeCLIP(FakeVAE):
    """A wrapper with ``clone``."""

    def clone(self):
        return FakeCLIP(self.patcher.clone())


class FakeLoadedModel:
    """An owner's entry: a weak reference to a patcher, and a finalizer to detach once."""

    def __init__(self, patcher):
        self.reference, self.detached = weakref.ref(patcher), 0

    @property
    def model(self):
        return self.reference()


class Key:
    """A key with a label and paths, equal by name."""

    def __init__(self, name, paths=()):
        self.label, self.paths, self.files = name, tuple(paths), tuple(paths)

    def __eq__(self, other):
        return isinstance(other, Key) and other.label == self.label

    def __hash__(self):
        return hash(self.label)


class Owner:
    """What the cache asks for, recorded; *available* bytes, *clock* seconds and failures are set by the test."""

    def __init__(self):
        self.available, self.now, self.pending = 1 << 40, 100.0, ()
        self.forgotten, self.restored, self.started, self.trims, self.released = [], [], [], 0, 0
        self.unpinned, self.fail_restore, self.interrupt = [], False, None
        self.keeps_patched, self.unpatched = False, []

    def forget(self, loaded_model):
        loaded_model.detached += 1
        self.forgotten.append(loaded_model)

    def restore(self, patcher):
        self.restored.append(id(patcher))
        if self.fail_restore:
            raise RuntimeError("cannot restore")
        if not self.keeps_patched:
            patcher.backup.clear()

    def unpatch(self, patcher):
        if not patcher.backup:
            return False
        if self.fail_restore:
            raise RuntimeError("cannot restore")
        self.unpatched.append(id(patcher))
        patcher.model.tensors = [*patcher.backup.values()]
        patcher.backup.clear()
        return True

    def trim(self):
        self.trims += 1

    def release_spare(self):
        self.released += 1

    def raise_if_interrupted(self):
        if self.interrupt is not None:
            raise self.interrupt

    def hooks(self):
        return OwnerHooks(
            available_bytes=lambda: self.available,
            forget_loaded=self.forget,
            restore_base=self.restore,
            deactivate_pins=self.unpinned.append,
            pending_paths=lambda: self.pending,
            trim=self.trim,
            release_spare=self.release_spare,
            raise_if_interrupted=self.raise_if_interrupted,
            unpatch_base=self.unpatch,
        )


def patcher(size, **kwargs):
    """A base patcher over one tensor of *size* bytes."""
    return FakePatcher(FakeModule(FakeTensor(size)), **kwargs)


def caches(owner):
    """For a fixture: a function that makes caches of a cap on *owner*; their books must be right at the end."""
    made = []

    def build(cap=100, **settings):
        settings = {"headroom_bytes": 0, **settings}
        cache = RamModelCache(
            CacheSettings(cap, **settings),
            owner.hooks(),
            clock=lambda: owner.now,
            wall_clock=lambda: 0.0,
            start_thread=owner.started.append,
        )
        made.append(cache)
        return cache

    yield build
    for cache in made:
        assert cache.check() == []


def get(cache, key, size=40, build=patcher, seconds=1.0, **kwargs):
    """Fetch *key*; returns (the model, whether it was loaded)."""
    loads = []

    def load(missing):
        loads.extend(missing)
        return {key: Loaded(build(size), seconds) for key in missing}

    return cache.fetch({key: size}, load, **kwargs)[key], bool(loads)
