"""What may leave the process: plain data, as it was when it was handed over."""

import asyncio

import pytest

from comfy_execution.providers.snapshot import COPY_INLINE_BYTES, MAX_DEPTH, NotPlain, VersionBook, copy_plain, examine, take_copy


class Opaque:
    pass


def copied(value, book=None):
    return asyncio.run(take_copy(examine(value, book or VersionBook())))


@pytest.mark.parametrize(
    "value",
    [None, True, 7, 1.5, 2j, "text", b"bytes", [1, [2, (3, "x")]], {"a": {1: {2.5}}, "b": frozenset((1, 2))}, [[]], ()],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_plain_data_is_copied_equal(value):
    assert copied(value) == value and type(copied(value)) is type(value)


def test_a_copy_shares_no_container_and_keeps_what_was_shared():
    inner = [1]
    copy = copied([inner, inner, {"x": inner}])
    inner.append(2)
    assert copy == [[1], [1], {"x": [1]}]
    assert copy[0] is copy[1]


@pytest.mark.parametrize(
    "value",
    [Opaque(), Opaque, len, [Opaque()], {"x": (1, Opaque())}, type("Sub", (dict,), {})()],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_other_objects_stay_inside(value):
    with pytest.raises(NotPlain):
        examine(value, VersionBook())


def test_values_nested_too_deep_stay_inside():
    value = []
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(NotPlain, match="nested"):
        examine(value, VersionBook())


def test_tensors_are_copied_and_counted_once():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6.0)
    handed = examine([tensor, [tensor]], VersionBook())
    assert handed.bytes == 24
    copy = asyncio.run(take_copy(handed))
    tensor.add_(1)
    assert torch.equal(copy[0], torch.arange(6.0)) and copy[1][0] is copy[0]


def test_large_tensors_are_copied_as_well():
    torch = pytest.importorskip("torch")
    tensor = torch.full((COPY_INLINE_BYTES,), 3.0)
    assert torch.equal(copied([tensor])[0], tensor)


def test_a_tensor_changed_in_place_since_it_was_handed_over_stays_inside():
    torch = pytest.importorskip("torch")
    book, tensor = VersionBook(), torch.zeros(3)
    examine([tensor], book)
    examine([tensor], book)
    tensor.add_(1)
    with pytest.raises(NotPlain, match="in place"):
        examine([tensor], book)


def test_inference_tensors_are_copied_though_their_changes_are_not_counted():
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        tensor = torch.zeros(3)
        handed = examine([tensor], VersionBook())
    copy = asyncio.run(take_copy(handed))
    with torch.inference_mode():
        tensor.add_(1)
    assert float(copy[0].sum()) == 0.0


def test_tensors_that_are_more_than_their_numbers_stay_inside():
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.zeros(2, requires_grad=True),
        torch.zeros(2, device="meta"),
        torch.zeros(2, 2).to_sparse(),
        torch.nn.Parameter(torch.zeros(2), requires_grad=False),
    ):
        with pytest.raises(NotPlain):
            examine([tensor], VersionBook())


def test_arrays_are_copied_and_those_of_objects_stay_inside():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(4)
    copy = copied({"a": array})["a"]
    array[:] = 0
    assert copy.tolist() == [0, 1, 2, 3]
    with pytest.raises(NotPlain):
        examine(numpy.array([Opaque()]), VersionBook())


@pytest.mark.parametrize("outputs, size_bytes", [([], 0), ([[1, 2.5, None, True, 1j]], 0), ([["text"], [b"bytes", 3]], 9), ([[]], 0)])
def test_plain_values_are_copied_at_once_as_they_would_be_after_a_look_at_them(outputs, size_bytes):
    copied, counted = copy_plain(outputs)
    assert copied == outputs == examine(outputs, VersionBook()).rebuild() and counted == size_bytes
    assert copied is not outputs and all(mine is not theirs for mine, theirs in zip(copied, outputs))


@pytest.mark.parametrize("outputs", [([1],), [(1,)], [[[1]]], [[{}]], [[object()]], [[type("Int", (int,), {})(1)]], [None]])
def test_anything_else_is_examined_in_full(outputs):
    assert copy_plain(outputs) is None
