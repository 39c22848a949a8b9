"""Values are equal by content; what cannot be compared is equal to nothing; changes in place are seen."""

import dataclasses
import enum
import functools
import gc
import math
import re
import types
import weakref

import numpy
import pytest
import torch

from comfy.patch_identity.fingerprints import Fingerprints
from comfy.patch_identity.tensor_digests import version_of
from comfy.weight_adapter.lora import LoRAAdapter

FACTOR = 2


@pytest.fixture
def prints():
    return Fingerprints()


class Kind(enum.Enum):
    FIRST = 1
    SECOND = 2


@dataclasses.dataclass(frozen=True)
class Settings:
    scale: float
    names: tuple = ()


class Declared:
    def __init__(self, scale):
        self.scale = scale

    def patch_identity_key(self):
        return self.scale

    def method(self):
        return self.scale


class Inheriting(Declared):
    pass


def scaled(scale, offset=None):
    def patch(value):
        return value * scale if offset is None else value * scale + offset

    return patch


def other(scale, offset=None):
    def patch(value):
        return value + scale if offset is None else value + scale + offset

    return patch


def with_default(value, scale=FACTOR):
    return value * scale


def adapter(seed, alpha=8.0):
    source = torch.Generator().manual_seed(seed)
    return LoRAAdapter({f"key {seed}"}, (torch.randn(8, 2, generator=source), torch.randn(2, 8, generator=source), alpha, None, None, None))


MAKERS = {
    "none": lambda: None,
    "number": lambda: 1.5,
    "whole number": lambda: 1,
    "flag": lambda: True,
    "text": lambda: "1",
    "bytes": lambda: b"1",
    "list": lambda: [1, "1", 1.0],
    "tuple": lambda: (1, "1", 1.0),
    "nested list": lambda: [[1], "1", 1.0],
    "dict": lambda: {"a": 1, "b": [2]},
    "dict in another order": lambda: {"b": [2], "a": 1},
    "set": lambda: {3, 1, 2},
    "enum": lambda: Kind.FIRST,
    "another enum": lambda: Kind.SECOND,
    "dataclass": lambda: Settings(1.0, ("a",)),
    "another dataclass": lambda: Settings(2.0, ("a",)),
    "class": lambda: Settings,
    "tensor": lambda: torch.arange(6.0),
    "tensor of another shape": lambda: torch.arange(6.0).reshape(2, 3),
    "tensor of another dtype": lambda: torch.arange(6, dtype=torch.float64),
    "flags": lambda: torch.ones(3, dtype=torch.bool),
    "8 bits": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "no values": lambda: torch.empty(0),
    "scalar": lambda: torch.tensor(3.0),
    "array": lambda: numpy.arange(6.0),
    "array scalar": lambda: numpy.float32(2),
    "dtype": lambda: torch.float16,
    "device": lambda: torch.device("cpu"),
    "closure": lambda: scaled(2.0),
    "closure with another value": lambda: scaled(3.0),
    "closure with a tensor": lambda: scaled(2.0, torch.ones(3)),
    "closure with another tensor": lambda: scaled(2.0, torch.zeros(3)),
    "other code": lambda: other(2.0),
    "default": lambda: with_default,
    "partial": lambda: functools.partial(with_default, scale=3),
    "another partial": lambda: functools.partial(with_default, scale=4),
    "declared": lambda: Declared(1.0),
    "another declared": lambda: Declared(2.0),
    "bound method": lambda: Declared(1.0).method,
    "another bound method": lambda: Declared(2.0).method,
    "builtin": lambda: math.sqrt,
    "adapter": lambda: adapter(1),
    "another adapter": lambda: adapter(2),
    "adapter of another alpha": lambda: adapter(1, 4.0),
}


@pytest.mark.parametrize("name", MAKERS)
def test_values_made_again_are_equal_and_others_are_not(prints, name):
    own = prints.of(MAKERS[name]())
    assert own.reason == "" and own.digest == prints.of(MAKERS[name]()).digest
    assert [other for other, make in MAKERS.items() if prints.of(make()).digest == own.digest] == [name]


def test_signs_of_zero_and_kinds_of_nan_are_distinguished(prints):
    values = [0.0, -0.0, math.nan, math.inf, 0, False]
    assert len({prints.of(value).digest for value in values}) == len(values)
    assert prints.of(math.nan).digest == prints.of(math.nan).digest


def unimported():
    return types.FunctionType(scaled.__code__, {}, "function")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (object, "builtins.object, whose class declares no patch_identity_key"),
        (lambda: [1, object()], r"it\[1\] holds a builtins.object"),
        (lambda: scaled(object()), "scale of scaled.<locals>.patch"),
        (lambda: torch.nn.Linear(2, 2), "Linear"),
        (lambda: Inheriting(1.0), "Inheriting, whose class declares no"),
        (lambda: torch.empty(3, device="meta"), "without values"),
        (lambda: torch.ones(3, 3).to_sparse(), "not compared by its values"),
        (unimported, "no imported module"),
    ],
)
def test_what_cannot_be_compared_is_unique_and_says_why(prints, make, reason):
    value = make()
    first, second = prints.of(value), prints.of(value)
    assert first.digest != second.digest
    assert re.search(reason, first.reason), first.reason


def test_deep_and_circular_values_end(prints):
    deep = []
    for _ in range(1000):
        deep = [deep]
    assert "nested more than" in prints.of(deep).reason
    circle = []
    circle.append(circle)
    assert prints.of(circle).reason == ""

    def recursive(n):
        return recursive(n - 1) if n else 0

    assert prints.of(recursive).reason == ""


def test_a_number_of_the_module_that_the_function_reads_counts(prints, monkeypatch):
    def reads():
        return FACTOR

    before = prints.of(reads).digest
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert prints.of(reads).digest != before


def test_a_tensor_is_read_once_until_it_changes(prints):
    tensor = torch.zeros(1000)
    before = prints.of(tensor)
    prints.of([tensor, {"again": tensor}])
    assert prints.tensors.read_bytes == 4000 and before.is_current()
    tensor[3] = 1
    assert not before.is_current() and prints.of(tensor).digest != before.digest
    assert prints.tensors.read_bytes == 8000


def test_a_view_of_a_tensor_counts_as_it(prints):
    tensor = torch.zeros(10, 10)
    before = prints.of(tensor[2:4])
    prints.of(tensor[2:4])
    assert prints.tensors.read_bytes == 80
    tensor[3, 3] = 1
    assert not before.is_current() and prints.of(tensor[2:4]).digest != before.digest
    assert prints.of(tensor.t()).digest == prints.of(tensor.t().contiguous()).digest


def test_a_parameter_that_got_its_values_from_inference_mode_is_read_each_time(prints):
    """torch says of it that it is none of inference mode, and has no counter for it either: a pack's module after ``to``."""
    with torch.inference_mode():
        module = torch.nn.Linear(3, 4)
    weight = module.to(torch.float64).weight
    assert not weight.is_inference() and version_of(weight) is None
    before = prints.of([weight])
    assert not before.reason and before.is_current() and prints.of([weight]).digest == before.digest
    with torch.inference_mode():
        weight.add_(1)
    assert not before.is_current() and prints.of([weight]).digest != before.digest


def test_a_tensor_of_inference_mode_is_read_each_time_or_is_unique(prints):
    with torch.inference_mode():
        tensor = torch.zeros(1000)
    before = prints.of(tensor)
    assert prints.of(tensor).digest == before.digest and prints.tensors.read_bytes == 8000
    assert "made in inference mode" in prints.of(tensor, rereads_bytes=100).reason
    with torch.inference_mode():
        tensor[3] = 1
    assert not before.is_current() and prints.of(tensor).digest != before.digest


def test_a_parameter_stands_for_itself_and_is_not_read(prints):
    weight = torch.nn.Parameter(torch.zeros(1000), requires_grad=False)
    before = prints.of(weight)
    assert prints.of(weight).digest == before.digest and prints.tensors.read_bytes == 0
    assert prints.of(torch.nn.Parameter(torch.zeros(1000), requires_grad=False)).digest != before.digest
    weight[3] = 1
    assert not before.is_current() and prints.of(weight).digest != before.digest


def test_nothing_is_kept_alive_or_remembered_of_what_is_gone(prints):
    tensor, function = torch.zeros(1000), scaled(torch.ones(4))
    found = prints.of([tensor, function])
    assert len(prints.tensors) == 2
    del tensor, function
    gc.collect()
    assert len(prints.tensors) == 0 and found.is_current()


class Lasting:
    """Promises a key that lasts, and counts how often it is asked for."""

    patch_identity_lasts = True
    asked = 0

    def __init__(self, tensor):
        self.tensor = tensor

    def patch_identity_key(self):
        type(self).asked += 1
        return (self.tensor,)


def test_what_lasts_is_walked_again_only_after_a_tensor_in_it_changed(prints):
    thing = Lasting(torch.ones(3))
    first = prints.of_lasting(thing)
    assert prints.of_lasting(thing) is first and Lasting.asked == 1 and first.digest == prints.of(thing).digest
    assert prints.of_lasting(Lasting(torch.ones(3))).digest == first.digest
    thing.tensor.add_(1)
    assert prints.of_lasting(thing).digest != first.digest
    reference = weakref.ref(thing)
    del thing
    assert reference() is None
