"""Ids of patches, and the weights they keep in place, under ComfyUI's own patcher, LoRA functions and model manager."""

import gc
import itertools
import uuid
from types import SimpleNamespace

import pytest
import torch

from comfy.cli_args import args, parser

if not torch.cuda.is_available():
    args.cpu = True

import comfy.lora
from comfy import model_management, model_patcher
from comfy.patch_reuse import next_patches_uuid
from comfy.weight_adapter import LoRAAdapter

CPU = torch.device("cpu")
NAMES = ("first", "second", "third")


@pytest.fixture(autouse=True)
def reusing(monkeypatch):
    monkeypatch.setattr(args, "reuse_equal_patches", True, raising=False)
    yield
    model_management.unload_all_models()


@pytest.fixture
def calculated(monkeypatch):
    """The weights that were computed anew, in order."""
    found, real = [], comfy.lora.calculate_weight

    def counted(patches, weight, key, *more, **named):
        found.append(key)
        return real(patches, weight, key, *more, **named)

    monkeypatch.setattr(comfy.lora, "calculate_weight", counted)
    return found


def model():
    torch.manual_seed(0)
    return torch.nn.ModuleDict({name: torch.nn.Linear(6, 5) for name in NAMES}).requires_grad_(False)


def base():
    return model_patcher.ModelPatcher(model(), CPU, CPU)


def lora(seed=1, names=NAMES, dtype=torch.float32):
    """What a file of LoRA tensors holds, made anew, in inference mode as nodes have it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        tensors = {}
        for name in names:
            tensors[f"{name}.lora_up.weight"] = torch.randn(5, 2, generator=generator).to(dtype)
            tensors[f"{name}.lora_down.weight"] = torch.randn(2, 6, generator=generator).to(dtype)
            tensors[f"{name}.alpha"] = torch.tensor(1.5)
            tensors[f"{name}.diff_b"] = torch.randn(5, generator=generator)
        return tensors


def patched(parent, strength=0.8, **file):
    """A clone with a LoRA, as LoraLoader makes it."""
    with torch.inference_mode():
        clone = parent.clone()
        clone.add_patches(comfy.lora.load_lora(lora(**file), {name: f"{name}.weight" for name in NAMES}), strength)
        return clone


def use(patcher):
    """Load it as the sampler does; its weights, by name."""
    with torch.inference_mode():
        model_management.load_models_gpu([patcher], force_full_load=True)
    return dict(patcher.model.named_parameters())


def test_the_flag_is_off_by_default():
    assert parser.parse_args([]).reuse_equal_patches is False
    assert parser.parse_args(["--reuse-equal-patches"]).reuse_equal_patches is True


def test_equal_patches_have_one_id_only_with_the_flag(monkeypatch):
    parent = base()
    assert patched(parent).patches_uuid == patched(parent).patches_uuid != parent.patches_uuid
    assert patched(base()).patches_uuid != patched(base()).patches_uuid
    monkeypatch.setattr(args, "reuse_equal_patches", False, raising=False)
    assert patched(parent).patches_uuid != patched(parent).patches_uuid


def test_anything_that_changes_a_weight_changes_the_id():
    parent = base()
    kinds = [{}, {"strength": 0.7}, {"seed": 2}, {"names": NAMES[:2]}, {"dtype": torch.bfloat16}, {"dtype": torch.float16}]
    ids = [patched(parent, **kind).patches_uuid for kind in kinds]
    assert len(set(ids)) == len(kinds)
    assert patched(patched(parent), seed=2).patches_uuid != patched(patched(parent, seed=2)).patches_uuid
    assert patched(patched(parent), seed=2).patches_uuid == patched(patched(parent), seed=2).patches_uuid


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("a", (1,))], [("a", (True,))]),
        ([("a", (1,))], [("a", (1.0,))]),
        ([("a", (0.0,))], [("a", (-0.0,))]),
        ([("a", ("1",))], [("a", (1,))]),
        ([("a", ("bc",))], [("ab", ("c",))]),
        ([("a", ((1,), 2))], [("a", ((1, 2),))]),
        ([("a", (1, 2))], [("a", [1, 2])]),
        ([("a", (1,)), ("b", (2,))], [("b", (2,)), ("a", (1,))]),
        ([(("a", (0, 0, 2)), (1,))], [(("a", (0, 2, 2)), (1,))]),
        ([("a", (torch.zeros(2, 3),))], [("a", (torch.zeros(3, 2),))]),
        ([("a", (torch.zeros(2),))], [("a", (torch.zeros(2, dtype=torch.int32),))]),
        ([("a", (torch.zeros(1),))], [("a", (torch.zeros(()),))]),
        ([("a", (torch.arange(6.0).reshape(2, 3).T,))], [("a", (torch.arange(6.0).reshape(3, 2),))]),
        ([("a", LoRAAdapter(set(), (torch.ones(2), None)))], [("a", (torch.ones(2), None))]),
    ],
)
def test_values_that_differ_have_other_ids(one, other):
    assert uuid_of(one) == uuid_of(list(one)) != uuid_of(other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool])
def test_tensors_of_every_kind_are_compared_by_value(dtype):
    one, other = (torch.tensor([1, 0, 1, value]).to(dtype) for value in (0, 1))
    ids = [uuid_of([("a", (tensor,))]) for tensor in (one, other, one.clone(), one[::2], other[::2])]
    assert ids[0] == ids[2] != ids[1] and ids[3] == ids[4] != ids[0]


def uuid_of(added, table=None):
    """The id that a patcher with the patches *table* gets by *added*."""
    return next_patches_uuid(SimpleNamespace(patches_uuid=uuid.UUID(int=1), patches=table or {}), added)


class Odd(torch.Tensor):
    pass


class OddAdapter(LoRAAdapter):
    pass


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, device="meta"),
        torch.zeros(2).as_subclass(Odd),
        torch.eye(2).to_sparse(),
        OddAdapter(set(), (torch.ones(2),)),
        object(),
        lambda weight: weight,
        {"a": 1},
        ([(torch.zeros(2), lambda weight: weight)],),
    ],
)
def test_what_cannot_be_compared_is_new_each_time(value):
    assert uuid_of([("a", value)]) != uuid_of([("a", value)])


def test_a_tensor_that_was_changed_is_another_one():
    patches = {"first.weight": ("diff", (torch.ones(5, 6),))}
    parent = base()
    ids = []
    for _ in range(2):
        clone = parent.clone()
        clone.add_patches(patches)
        ids.append(clone.patches_uuid)
        patches["first.weight"][1][0][0, 0] = 7
    assert ids[0] != ids[1]


def test_the_same_lora_again_leaves_the_weights_in_place(calculated):
    parent = base()
    first = patched(parent)
    before = {name: (weight.data_ptr(), weight.clone()) for name, weight in use(first).items()}
    assert len(calculated) == 2 * len(NAMES)
    del first
    gc.collect()
    again = use(patched(parent))
    assert len(calculated) == 2 * len(NAMES)
    assert all(again[name].data_ptr() == place and torch.equal(again[name], weight) for name, (place, weight) in before.items())


def test_without_the_flag_the_weights_are_computed_again(calculated, monkeypatch):
    monkeypatch.setattr(args, "reuse_equal_patches", False, raising=False)
    parent = base()
    use(patched(parent))
    use(patched(parent))
    assert len(calculated) == 4 * len(NAMES)


def test_weights_are_those_of_a_model_patched_from_scratch():
    """Every way from one set of patches to another, on one module."""
    parent = base()
    kinds = [{}, {"strength": 0.3}, {"seed": 2}, {"seed": 2, "strength": 0.3}, {"names": NAMES[1:]}, {"strength": 0.0}]
    fresh = [{name: weight.clone() for name, weight in use(patched(base(), **kind)).items()} for kind in kinds]
    for at in itertools.chain.from_iterable((one, other, one) for one, other in itertools.permutations(range(len(kinds)), 2)):
        weights = use(patched(parent, **kinds[at]))
        assert all(torch.equal(weights[name], fresh[at][name]) for name in weights)
    weights = use(parent)
    assert all(torch.equal(weights[name], weight) for name, weight in model().named_parameters())


def test_hooks_and_casts_still_make_a_patcher_another_one():
    parent = base()
    one, other = patched(parent), patched(parent)
    other.set_model_compute_dtype(torch.bfloat16)
    assert one.patches_uuid != other.patches_uuid
    wrapped = patched(parent)
    wrapped.add_weight_wrapper("first.weight", lambda weight: weight)
    assert wrapped.patches_uuid != one.patches_uuid == patched(parent).patches_uuid


def test_a_table_that_was_changed_by_hand_counts():
    """Packs take patches out, or scale them, without a new id."""
    parent = base()
    ids = {patched(parent).patches_uuid}
    for change in (lambda table: table.clear(), lambda table: table.pop("first.weight"), halve):
        clone = patched(parent)
        given = clone.patches_uuid
        change(clone.patches)
        clone.patches_uuid = given
        ids.add(patched(clone).patches_uuid)
    ids.add(patched(patched(parent)).patches_uuid)
    assert len(ids) == 5


def halve(table):
    for key, patches in table.items():
        table[key] = [(patch[0] / 2, *patch[1:]) for patch in patches]
