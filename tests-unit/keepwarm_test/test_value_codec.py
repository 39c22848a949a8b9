"""Values survive the codec exactly, or are refused."""

import math
import re
import struct

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_nodes.keepwarm.entry_format import Rejected, Sealer, read_value
from custom_nodes.keepwarm.value_codec import TORCH_DTYPES, Buffer, Malformed, NotRepresentable, build, decode, encode, expected_bytes

torch = pytest.importorskip("torch")
KEY = "a" * 64


def through(value, sealer=None):
    """*value* sealed, joined to bytes, opened and read again."""
    sealer = sealer or Sealer()
    sealed = sealer.seal(KEY, "Node", value)
    opened = sealer.open(KEY, b"".join(sealed.entry))
    blobs = {blob.digest: bytes(blob.data) for blob in sealed.blobs}
    assert opened.wanted == {digest: len(data) for digest, data in blobs.items()}
    return read_value(opened, blobs)


def bits(value):
    """A form in which two values are equal exactly when types and bits are."""
    if type(value) is float:
        return "float", struct.pack(">d", value)
    if type(value) is complex:
        return "complex", struct.pack(">dd", value.real, value.imag)
    if type(value) in (list, tuple):
        return type(value).__name__, [bits(item) for item in value]
    if type(value) in (set, frozenset):
        return type(value).__name__, sorted(map(repr, map(bits, value)))
    if type(value) is dict:
        return "dict", [(bits(key), bits(item)) for key, item in value.items()]
    return type(value).__name__, repr(value)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.binary()
    | st.text(st.characters(exclude_categories=()))
)
hashables = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.sets(hashables, max_size=3)
        | st.dictionaries(hashables, inner, max_size=3)
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(values)
def test_plain_values_come_back_with_their_types_and_bits(value):
    assert bits(through(value)) == bits(value)


@pytest.mark.parametrize("value", [math.nan, -0.0, math.inf, 2**80, -(2**53) - 1, 1, 1.0, True, "1", "\ud800", b"\x00", "", (), [], {}])
def test_edge_values_come_back_bit_for_bit(value):
    assert bits(through(value)) == bits(value)


@pytest.mark.parametrize("code", TORCH_DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 5), (4, 0, 2)])
def test_tensors_of_every_dtype_come_back_bit_for_bit(code, shape):
    name, item_bytes = TORCH_DTYPES[code]
    raw = torch.randint(0, 256, (math.prod(shape) * item_bytes,), dtype=torch.uint8)
    tensor = build(Buffer({"dtype": code, "shape": list(shape)}, raw.numpy())) if code != "BOOL" else (raw > 127).reshape(shape)
    back = through([tensor])[0]
    assert back.dtype == tensor.dtype == getattr(torch, name) and back.shape == tensor.shape == torch.Size(shape)
    assert bytes(encode(back).buffers[0].data) == bytes(encode(tensor).buffers[0].data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(set(TORCH_DTYPES) - {"BOOL"})), st.lists(st.integers(0, 5), max_size=4), st.data())
def test_tensors_of_any_dtype_shape_and_layout_come_back_bit_for_bit(code, shape, data):
    """NaNs of every kind, -0.0 and subnormal numbers among them, for the bits are random; views are cut, turned and expanded."""
    raw = data.draw(st.binary(min_size=math.prod(shape) * TORCH_DTYPES[code][1], max_size=math.prod(shape) * TORCH_DTYPES[code][1]))
    tensor = build(Buffer({"dtype": code, "shape": shape}, raw))
    if shape:
        tensor = tensor.permute(data.draw(st.permutations(range(len(shape)))))
        dim = data.draw(st.integers(0, len(shape) - 1))
        tensor = tensor[(slice(None),) * dim + (slice(data.draw(st.integers(0, 2)), None, data.draw(st.integers(1, 2))),)]
    if data.draw(st.booleans()):
        tensor = tensor.unsqueeze(0).expand(2, *tensor.shape)
    back = through({"samples": [tensor], "again": (tensor,)})
    assert back["again"][0] is back["samples"][0]
    assert back["samples"][0].dtype == tensor.dtype and back["samples"][0].shape == tensor.shape
    assert bytes(encode(back["samples"][0].contiguous()).buffers[0].data) == bytes(encode(tensor.contiguous()).buffers[0].data)


def test_every_dtype_of_torch_with_bytes_of_its_own_is_known():
    found = {str(value).removeprefix("torch.") for value in vars(torch).values() if isinstance(value, torch.dtype)}
    packed = {name for name in found if re.fullmatch(r"q.*|bits.*|u?int[1-7]", name)}
    assert found - packed == {name for name, _ in TORCH_DTYPES.values()}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        lambda: torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last),
        lambda: torch.rand(8, 8)[::2, 1:],
        lambda: torch.rand(1).expand(5),
        lambda: torch.rand(3, 4).T,
        lambda: torch.rand(5, dtype=torch.cfloat).conj(),
        lambda: torch.rand(4, dtype=torch.cfloat).conj().imag,
    ],
)
def test_views_come_back_with_values_and_dense_layouts_with_strides(make):
    tensor = make()
    back = through(tensor)
    assert torch.equal(back, tensor)
    if torch.ops.aten.is_non_overlapping_and_dense(tensor):
        assert back.stride() == tensor.stride()


def test_inference_tensors_are_read_and_results_can_be_changed():
    with torch.inference_mode():
        tensor = torch.rand(300, 300)
    back = through({"samples": tensor})["samples"]
    assert torch.equal(back, tensor)
    back.add_(1)


def test_the_same_tensor_twice_is_written_once_and_stays_one():
    tensor = torch.rand(200, 200)
    sealed = Sealer().seal(KEY, "Node", [tensor, {"again": tensor}, tensor.clone()])
    assert len(sealed.blobs) == 1
    first, second, third = through([tensor, {"again": tensor}, tensor.clone()])
    assert second["again"] is first and third is not first


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "|u1", "|b1", "<c16", "<U5", "|S3", "<f2", ">u4"])
def test_arrays_come_back(dtype):
    array = numpy.frombuffer(bytes(range(256)) * 15, dtype="|u1")[: 60 * numpy.dtype(dtype).itemsize]
    if dtype[1] in "US":
        array = numpy.array([["a", "bc"]] * 30, dtype).reshape(3, 20)
    else:
        array = (array > 9 if dtype == "|b1" else array.view(dtype)).reshape(3, 20)
    back = through(array)
    assert back.dtype.str == array.dtype.str and back.shape == array.shape and back.tobytes() == array.tobytes()
    assert back.flags.writeable


@given(st.sampled_from(["<f4", ">f8", "|u1", "<c16", "<U2"]), st.lists(st.integers(0, 4), max_size=3), st.integers(1, 3), st.randoms())
def test_arrays_of_any_shape_and_layout_come_back(dtype, shape, step, dice):
    array = numpy.arange(math.prod(shape)).astype(dtype).reshape(shape)
    axes = list(range(len(shape)))
    dice.shuffle(axes)
    array = array.transpose(axes)[(..., *(slice(None, None, -step) for _ in shape))]
    back = through(array)
    assert back.dtype.str == array.dtype.str and back.shape == array.shape and back.tobytes() == array.tobytes()


class Text(str):
    pass


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Text("x"),
        torch.nn.Linear(1, 1),
        torch.nn.Parameter(torch.zeros(1)),
        numpy.float32(1),
        numpy.array([object()]),
        range(3),
        {"deep": [print]},
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
        numpy.zeros(2, [("a", "<f4")]),
        bytearray(b"x"),
        torch.float32,
        torch.zeros(1, requires_grad=True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_without_an_exact_form_are_refused(value):
    with pytest.raises(NotRepresentable):
        encode(value)


def test_values_nested_too_deeply_are_refused():
    value = []
    for _ in range(300):
        value = [value]
    with pytest.raises(NotRepresentable, match="deep"):
        encode(value)


@pytest.mark.parametrize(
    "tree",
    [
        1.5,
        {},
        ["l"],
        ["l", 3],
        ["q", []],
        ["x", 0],
        ["x", -1],
        ["x", True],
        ["f", "zz"],
        ["i", "0x"],
        ["b", "%%"],
        ["d", [1]],
        ["d", [[["l", []], 1]]],
        ["s", [["l", []]]],
        ["f", "00"],
        [1, 2],
        ["c", "00"],
        ["p", "os.system"],
    ],
    ids=str,
)
def test_forged_structures_are_malformed(tree):
    with pytest.raises(Malformed):
        decode(tree, [])


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "F32", "shape": [1 << 61, 1 << 61]},
        {"dtype": "F32", "shape": [-1]},
        {"dtype": "F32", "shape": [True]},
        {"dtype": "F32", "shape": "x"},
        {"dtype": "OBJ", "shape": [1]},
        {"array": "|O8", "shape": [1]},
        {"array": "<f40", "shape": [1]},
        {"array": "V8", "shape": [1]},
        {"dtype": "F32", "shape": [1] * 100},
        {"shape": [1]},
        {"dtype": "F32", "shape": [1], "order": [1]},
        {"dtype": "F32", "shape": [1], "device": "cuda"},
        {"dtype": "F32", "shape": [1], "device": "../x"},
    ],
)
def test_forged_descriptions_are_malformed_before_anything_is_allocated(about):
    with pytest.raises(Malformed):
        build(Buffer(about, b"1234"))


def test_sizes_need_no_memory():
    assert expected_bytes({"dtype": "BF16", "shape": [1 << 20, 1 << 20, 1 << 10]}) == 1 << 51


@pytest.mark.parametrize("key", [None, b"secret"])
def test_any_flipped_bit_and_any_truncation_is_rejected(key):
    sealer = Sealer(key)
    sealed = sealer.seal(KEY, "Node", [torch.arange(5), "text", torch.zeros(40000)])
    data = b"".join(sealed.entry)
    (blob,) = sealed.blobs
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(Rejected):
            sealer.open(KEY, damaged)
    for length in range(0, len(data), 13):
        with pytest.raises(Rejected):
            sealer.open(KEY, data[:length])
    spoiled = bytearray(blob.data)
    spoiled[77] ^= 4
    for other in (spoiled, bytes(blob.data)[:-4], b""):
        with pytest.raises(Rejected):
            read_value(sealer.open(KEY, data), {blob.digest: other})


def test_another_key_a_missing_seal_and_another_place_are_rejected():
    with_key, without, other = Sealer(b"one"), Sealer(), Sealer(b"two")
    sealed = b"".join(with_key.seal(KEY, "Node", 1).entry)
    plain = b"".join(without.seal(KEY, "Node", 1).entry)
    for sealer, data, key in ((other, sealed, KEY), (without, sealed, KEY), (with_key, plain, KEY), (with_key, sealed, "b" * 64)):
        with pytest.raises(Rejected):
            sealer.open(key, data)
    assert read_value(with_key.open(KEY, sealed), {}) == 1
