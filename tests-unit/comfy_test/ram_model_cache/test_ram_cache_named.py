"""Models of a RAM model cache by the names that status pages show: what is known of them, holding and dropping one."""

from dataclasses import dataclass

from ram_cache_fakes import FakeDevice, FakeLoadedModel, FakePatcher, get, patcher

from comfy.ram_model_cache.named import name_of
from comfy.ram_model_cache.weights_key import FileIdentity, WeightsKey


@dataclass(frozen=True)
class Part:
    """A key of a file that need not be there."""

    component: str
    paths: tuple[str, ...] = ("/models/a.safetensors",)
    files: tuple[str, ...] = ()

    @property
    def label(self):
        return f"{self.component} of a.safetensors"


MODEL, CLIP = Part("model"), Part("clip")


class OnDevice(FakeLoadedModel):
    """A model of which 30 bytes are on an accelerator."""

    device = FakeDevice("cuda")

    @property
    def model(self):
        found = self.reference()
        if found is not None:
            found.loaded_size = lambda: 30
        return found


def test_names_are_equal_for_equal_keys_only():
    file = FileIdentity("/models/\udcff", 40, 1, 2, 3, 4)
    names = [name_of(WeightsKey("model", (file,))), name_of(WeightsKey("model", (file,), (("dtype", "fp8"),)))]
    assert names[0] == name_of(WeightsKey("model", (file,))) != names[1] and [len(name) for name in names] == [16, 16]


def test_facts_tell_where_a_model_is_and_who_uses_it(make, owner):
    cache = make()
    used, _ = get(cache, MODEL, seconds=2.5)
    get(cache, CLIP, size=10)
    owner.now += 7
    model, clip = sorted(cache.named.facts(), key=lambda facts: facts.component, reverse=True)
    assert (model.name, model.label, model.paths) == (name_of(MODEL), "model of a.safetensors", ("/models/a.safetensors",))
    assert (model.state, model.host_bytes, model.device_bytes, model.users, model.held) == ("kept", 40, 0, 1, False)
    assert (model.idle_s, model.reload_s) == (7, 2.5)
    assert (clip.component, clip.host_bytes, clip.users) == ("clip", 10, 0)
    loaded = OnDevice(used)
    cache.reclaim(loaded)
    assert cache.named.name_of(loaded) == name_of(MODEL)
    (model,) = [facts for facts in cache.named.facts() if facts.component == "model"]
    assert model.device_bytes == 30


def test_a_model_that_the_cache_does_not_know_has_no_name(make):
    stranger = patcher(10)
    assert make().named.name_of(FakeLoadedModel(stranger)) is None
    gone = FakeLoadedModel(FakePatcher(stranger.model))
    assert gone.model is None and make().named.name_of(gone) is None


def test_one_model_is_held_and_dropped_by_its_name(make):
    cache = make()
    get(cache, MODEL)
    get(cache, CLIP, size=10)
    assert cache.named.hold(name_of(MODEL), True) and cache.is_held(MODEL) and not cache.is_held(CLIP)
    assert cache.named.hold(name_of(MODEL), False) and not cache.is_held(MODEL)
    assert cache.named.hold(name_of(MODEL), True)
    assert cache.named.drop(name_of(MODEL), "asked for") and cache.stats().kept_bytes == 10
    assert not cache.named.drop(name_of(MODEL), "asked for") and not cache.named.hold(name_of(MODEL), True)
    get(cache, MODEL)
    assert cache.receipts(None)[-1]["reason"].startswith("evicted (asked for)")


def test_what_is_dropped_while_it_is_used_is_lent_until_its_user_is_done(make):
    cache = make()
    used, _ = get(cache, MODEL)
    assert cache.named.drop(name_of(MODEL), "asked for")
    (facts,) = cache.named.facts()
    assert (facts.state, facts.users) == ("lent", 1) and not cache.named.drop(facts.name, "again")
    del used
    assert cache.named.facts() == []
