"""Equal patches are one: patched weights stay where they are when nodes make the same patches again, and only others are computed."""

import gc
import uuid

import pytest
import torch
from residency_models import MIB, Layers, batch, management, patcher_of

import comfy.lora
import comfy.model_management
from comfy.patching.content_identity import ContentIdentity
from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.weight_adapter.lora import LoRAAdapter

DEVICES = {"processor": None, "simulated": MIB}
load = comfy.model_management.load_models_gpu


@pytest.fixture(params=DEVICES.values(), ids=DEVICES)
def base(request):
    with management(request.param):
        yield patcher_of(Layers())


@pytest.fixture
def computed(monkeypatch):
    """The names of the weights that are computed, in turn."""
    names, calculate = [], comfy.lora.calculate_weight

    def counting(patches, weight, key, **options):
        names.append(key)
        return calculate(patches, weight, key, **options)

    monkeypatch.setattr(comfy.lora, "calculate_weight", counting)
    return names


def lora(seed, key="first.weight", rows=64, columns=32):
    source = torch.Generator().manual_seed(seed)
    return {
        key: LoRAAdapter(set(), (torch.randn(rows, 2, generator=source), torch.randn(2, columns, generator=source), 2.0, None, None, None))
    }


def patched(base, *steps):
    clone = base.clone()
    for patches, strength in steps:
        clone.add_patches(patches, strength)
    return clone


def parameters(base):
    return dict(base.model.named_parameters())


def test_the_same_patches_made_again_keep_the_weights_where_they_are(base, computed):
    load([patched(base, (lora(1), 0.5), (lora(2, "last.weight", 32, 64), 1.0))])
    placed = parameters(base)
    assert sorted(computed) == ["first.weight", "last.weight"]
    again = patched(base, (lora(2, "last.weight", 32, 64), 1.0), (lora(1), 0.5))  # other weights: no order between them
    load([again])
    assert len(computed) == 2 and all(value is placed[name] for name, value in parameters(base).items())


def test_another_strength_computes_only_the_weights_it_touches(base, computed):
    load([patched(base, (lora(1), 0.5), (lora(2, "last.weight", 32, 64), 1.0))])
    placed = parameters(base)
    computed.clear()
    other = patched(base, (lora(1), 0.25), (lora(2, "last.weight", 32, 64), 1.0))
    load([other])
    assert computed == ["first.weight"]
    now = parameters(base)
    assert [name for name, value in now.items() if value is not placed[name] and name.endswith("weight")] == ["first.weight"]
    answer = other.model(batch())
    comfy.model_management.unload_all_models()
    base.detach()
    load([other])
    assert torch.equal(other.model(batch()), answer)


def test_the_order_of_patches_on_one_weight_counts(base):
    first, second = (lora(1), 1.0), (lora(2), 1.0)
    assert patched(base, first, second).patches_uuid == patched(base, first, second).patches_uuid
    assert patched(base, first, second).patches_uuid != patched(base, second, first).patches_uuid


def test_a_patch_changed_in_place_is_seen(base, computed):
    patches = lora(1)
    clone = patched(base, (patches, 1.0))
    load([clone])
    before, known = clone.model(batch()), clone.patches_uuid
    patches["first.weight"].weights[0].mul_(2)
    assert clone.patches_uuid != known
    load([clone])
    assert computed == ["first.weight", "first.weight"] and not torch.equal(clone.model(batch()), before)


def test_what_cannot_be_compared_equals_only_itself(base):
    class Opaque(torch.nn.Module):
        def forward(self, change):
            return change

    opaque = Opaque()
    key = ("first.weight", None, opaque)
    one = patched(base, ({key: (torch.ones(64, 32),)}, 1.0))
    assert one.patches_uuid == one.patches_uuid == one.clone().patches_uuid
    two = patched(base, ({key: (torch.ones(64, 32),)}, 1.0))
    assert one.patches_uuid != two.patches_uuid
    known, tensor = one.patches_uuid, one.patches.read("first.weight")[0][1][0]
    tensor.add_(1)
    assert one.patches_uuid != known and one.patches_uuid == one.patches_uuid
    assert [reason for reason in ContentIdentity(one).reasons() if "Opaque" in reason] and ContentIdentity(base).reasons() == []


@pytest.mark.parametrize(
    "replace", [torch.nn.Identity, lambda: torch.nn.LayerNorm(32).requires_grad_(False)], ids=["empty", "with weights"]
)
def test_a_layer_that_is_loaded_leaves_whole_when_another_takes_its_place(base, replace):
    original, pristine, answer = base.model.norm, base.model.norm.weight, base.model(batch())
    replacement = replace()
    own = dict(replacement.named_parameters())
    clone = base.clone()
    clone.add_object_patch("norm", replacement)
    for patcher in (base, clone, base, clone):
        load([patcher])
        patcher.model(batch())
        device = {parameter.device for parameter in base.model.parameters()}
        assert len(device) == 1 and base.loaded_size() > 0
    comfy.model_management.unload_all_models()
    base.detach()
    assert base.model.norm is original and base.model.norm.weight is pristine and base.backup == {}
    assert all(dict(replacement.named_parameters())[name] is value for name, value in own.items())
    assert torch.equal(base.model(batch()), answer)


@pytest.mark.parametrize("vram_bytes", DEVICES.values(), ids=DEVICES)
def test_patched_weights_stay_when_the_results_of_all_nodes_are_dropped(vram_bytes, computed):
    def make_cache(owner):
        return RamModelCache(CacheSettings(10 * MIB, headroom_bytes=0), owner.hooks(), start_thread=lambda run: None)

    with management(vram_bytes, cache=make_cache) as manager:
        cache = manager.ram_cache

        def fetched():
            return cache.fetch({"file": 10_000}, lambda keys: {"file": patcher_of(Layers())})["file"]

        model = fetched()
        pristine = model.model(batch())
        clone = patched(model, (lora(1), 0.5))
        load([clone])
        placed, answer = parameters(model), clone.model(batch())
        for _ in range(3):
            del model, clone
            gc.collect()
            cache.safe_point()
            assert cache.check() == []
            model = fetched()
            clone = patched(model, (lora(1), 0.5))
            load([clone])
            assert computed == ["first.weight"] and all(value is placed[name] for name, value in parameters(model).items())
            assert torch.equal(clone.model(batch()), answer)
        load([model])
        assert torch.equal(model.model(batch()), pristine) and cache.stats().counters.misses == 1


def test_the_receipt_says_why_patches_are_unique():
    def make_cache(owner):
        return RamModelCache(CacheSettings(10 * MIB, headroom_bytes=0), owner.hooks(), start_thread=lambda run: None)

    with management(cache=make_cache) as manager:
        base = patcher_of(Layers())
        load([patched(base, (lora(1), 1.0))])
        assert manager.ram_cache.receipts(None) == []
        load([patched(base, ({("first.weight", None, torch.nn.Identity()): (torch.ones(64, 32),)}, 1.0))])
        (receipt,) = manager.ram_cache.receipts(None)
        assert receipt["tier"] == "unique" and receipt["model"] == "patches of Layers" and "Identity" in receipt["reason"]
        assert manager.ram_cache.stats().counters.bypasses == 0


def test_wrappers_and_hooks_and_other_bases_count(base):
    def wrapper(weight):
        return weight * 2

    wrapped = base.clone()
    wrapped.add_weight_wrapper("first.weight", wrapper)
    assert wrapped.patches_uuid != base.patches_uuid and patcher_of(Layers()).patches_uuid != base.patches_uuid
    cast = base.clone()
    cast.set_model_compute_dtype(torch.float16)
    assert cast.patches_uuid not in (base.patches_uuid, wrapped.patches_uuid)


def test_a_name_given_by_a_node_pack_stands_until_the_next_change(base, computed):
    clone = patched(base, (lora(1), 1.0))
    load([clone])
    given = uuid.uuid4()
    clone.patches_uuid = given
    assert clone.patches_uuid == given == clone.clone().patches_uuid
    load([clone])
    assert computed == ["first.weight", "first.weight"], "a new name asks for new values"
    clone.add_patches(lora(2), 1.0)
    assert clone.patches_uuid != given


def test_lists_that_were_handed_out_before_cloning_stay_apart(base):
    base.add_patches(lora(1))
    handed_out = base.patches["first.weight"]
    clone = base.clone()
    handed_out.append("by hand")
    later = base.clone()
    for _, patches in base.patches.items():
        patches.append("by hand, too")
    assert [len(patcher.patches["first.weight"]) for patcher in (clone, later, base)] == [1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("first.weight"),
        lambda table: table.popitem(),
        lambda table: table.clear(),
        lambda table: table.update({"first.weight": ["other"]}),
        lambda table: table.__delitem__("first.weight"),
        lambda table: table.__ior__({"first.weight": ["other"]}),
        lambda table: table.setdefault("new", []).append("other"),
        lambda table: table.get("first.weight").append("other"),
    ],
)
@pytest.mark.parametrize("side", ["parent", "clone"])
def test_every_way_to_change_a_table_stays_on_its_side(base, change, side):
    base.add_patches(lora(1))
    before = list(base.patches.read("first.weight"))
    clone = base.clone()
    change((base if side == "parent" else clone).patches)
    kept = (clone if side == "parent" else base).patches
    assert dict(kept) == {"first.weight": before}


class PackAdapter(LoRAAdapter):
    """A node pack's: equal to every other one, without a hash, and with a number of its own that may change."""

    factor = 1.0
    __hash__ = None

    def __eq__(self, other):
        return isinstance(other, PackAdapter)

    def calculate_weight(self, weight, key, strength, *arguments, **options):
        return weight.add_(strength * self.factor)


def test_a_packs_changes_are_compared_by_what_they_hold_each_time(base):
    change, pristine = PackAdapter(set(), lora(1)["first.weight"].weights), parameters(base)["first.weight"].detach().clone()
    other = PackAdapter(set(), lora(2)["first.weight"].weights)
    first, second = patched(base, ({"first.weight": change}, 1.0)), patched(base, ({"first.weight": other}, 1.0))
    assert first.patches_uuid != second.patches_uuid
    load([first])
    assert torch.allclose(parameters(base)["first.weight"].cpu(), pristine + 1.0)
    change.factor = 2.0
    load([patched(base, ({"first.weight": change}, 1.0))])
    assert torch.allclose(parameters(base)["first.weight"].cpu(), pristine + 2.0)
