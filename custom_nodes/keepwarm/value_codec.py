"""Values as a JSON structure and raw tensor bytes, and back, exactly. Nothing that is read is ever executed.

What can be written: None, bool, int, float (NaN with its bits), complex, str, bytes, list, tuple, dict, set and frozenset of such, torch
tensors of every dtype that has bytes, numpy arrays of numbers and text. Everything else, subclasses included, is ``NotRepresentable``.
Tensor bytes are laid out as in safetensors files: little-endian, dense, one after the other.
"""

import base64
import importlib
import math
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 200
MAX_DIMENSIONS = 64
EXACT_INT = 1 << 53
# So many keys of a dict or set may share a hash.
FEW_KEYS = 64

# Name in the structure -> (torch's name, bytes per element). Names as in safetensors where it has the type.
TORCH_DTYPES: Mapping[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "F4": ("float4_e2m1fn_x2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "C32": ("complex32", 4),
    "C64": ("complex64", 8),
    "C128": ("complex128", 16),
}
_TORCH_CODES = {name: code for code, (name, _) in TORCH_DTYPES.items()}
_ARRAY_ITEM_BYTES = {"b": {1}, "i": {1, 2, 4, 8}, "u": {1, 2, 4, 8}, "f": {2, 4, 8}, "c": {8, 16}}


class NotRepresentable(ValueError):
    """A value that has no exact form outside this process; the message says what is in it."""


class Malformed(ValueError):
    """A structure that no encoder wrote; the message says where."""


@dataclass(slots=True)
class Buffer:
    """One tensor's or array's description, as it stands in the structure, and its bytes."""

    about: dict[str, Any]
    data: Any


@dataclass(slots=True)
class Encoded:
    """A value's JSON structure and the buffers it refers to by number."""

    tree: Any
    buffers: list[Buffer]

    @property
    def data_bytes(self) -> int:
        """What all buffers take."""
        return sum(memoryview(buffer.data).nbytes for buffer in self.buffers)


def encode(value: Any) -> Encoded:
    """*value* in parts; tensors that are dense in host memory are not copied. Raises ``NotRepresentable``."""
    writer = _Writer()
    return Encoded(writer.write(value, MAX_DEPTH), writer.buffers)


def decode(tree: Any, buffers: list[Buffer]) -> Any:
    """The value of *tree*. Tensors use the buffers' memory where it is writable or can be treated so. Raises ``Malformed``."""
    try:
        return _Reader(buffers).read(tree, MAX_DEPTH)
    except Malformed:
        raise
    except (TypeError, KeyError, IndexError, OverflowError, ValueError, struct.error, RuntimeError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from error


def expected_bytes(about: Mapping[str, Any]) -> int:
    """How many bytes the buffer described by *about* must have. Raises ``Malformed`` for what no encoder writes; allocates nothing."""
    shape = about.get("shape")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size < 1 << 62 for size in shape):
        raise Malformed(f"no shape: {str(shape)[:80]}")
    if "array" in about:
        return math.prod(shape) * _array_item_bytes(about["array"])
    known = TORCH_DTYPES.get(about.get("dtype", ""))
    if known is None:
        raise Malformed(f"unknown dtype {str(about.get('dtype'))[:40]!r}")
    return math.prod(shape) * known[1]


class _Writer:
    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self._places: dict[int, tuple[Any, list]] = {}

    def write(self, value: Any, depth: int) -> Any:
        if depth == 0:
            raise NotRepresentable(f"nested more than {MAX_DEPTH} deep")
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        simple = _SIMPLE.get(kind)
        if simple is not None:
            return simple(value)
        if kind in _CONTAINERS:
            return [_CONTAINERS[kind], [self.write(item, depth - 1) for item in value]]
        if kind is dict:
            return ["d", [[self.write(key, depth - 1), self.write(item, depth - 1)] for key, item in value.items()]]
        if (kind.__module__, kind.__name__) == ("torch", "Tensor"):
            return self._refer(value, describe_tensor)
        if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
            return self._refer(value, describe_array)
        raise NotRepresentable(f"an object of type {kind.__module__}.{kind.__qualname__}")

    def _refer(self, value: Any, describe: Callable[[Any], Buffer]) -> list:
        if id(value) not in self._places:
            self.buffers.append(describe(value))
            self._places[id(value)] = value, ["x", len(self.buffers) - 1]
        return self._places[id(value)][1]


_SIMPLE: dict[type, Callable[[Any], Any]] = {
    int: lambda value: value if -EXACT_INT <= value <= EXACT_INT else ["i", f"{value:x}"],
    float: lambda value: ["f", struct.pack(">d", value).hex()],
    complex: lambda value: ["c", struct.pack(">dd", value.real, value.imag).hex()],
    bytes: lambda value: ["b", base64.b64encode(value).decode()],
}
_CONTAINERS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
_MAKERS: dict[str, Callable[[list], Any]] = {"l": list, "t": tuple, "s": set, "z": frozenset}


class _Reader:
    def __init__(self, buffers: list[Buffer]) -> None:
        self._buffers = buffers
        self._made: dict[int, Any] = {}

    def read(self, tree: Any, depth: int) -> Any:
        if depth < 0:
            raise Malformed(f"nested more than {MAX_DEPTH} deep")
        if tree is None or type(tree) in (bool, str, int):
            return tree
        if type(tree) is not list or len(tree) != 2 or type(tree[0]) is not str:
            raise Malformed("a part that is neither a constant nor tagged")
        tag, body = tree
        if tag in _MAKERS and type(body) is list:
            items = [self.read(item, depth - 1) for item in body]
            if tag in "sz":
                _check_spread(items)
            return _MAKERS[tag](items)
        if tag == "d" and type(body) is list:
            keys = [self.read(key, depth - 1) for key, _ in body]
            _check_spread(keys)
            return {key: self.read(item, depth - 1) for key, (_, item) in zip(keys, body)}
        if tag == "x" and type(body) is int and 0 <= body < len(self._buffers):
            if body not in self._made:
                self._made[body] = build(self._buffers[body])
            return self._made[body]
        if type(body) is str:
            return _read_scalar(tag, body)
        raise Malformed(f"unknown tag {tag[:20]!r}")


def _check_spread(keys: list) -> None:
    """Raise ``Malformed`` for keys chosen so that looking one up means looking at all others: numbers of the same hash."""
    if len(keys) > FEW_KEYS and len(set(map(hash, keys))) < len(keys) / FEW_KEYS:
        raise Malformed(f"{len(keys)} keys of nearly the same hash")


def _read_scalar(tag: str, body: str) -> Any:
    if tag == "f":
        return struct.unpack(">d", bytes.fromhex(body))[0]
    if tag == "i":
        return int(body, 16)
    if tag == "b":
        return base64.b64decode(body, validate=True)
    if tag == "c":
        return complex(*struct.unpack(">dd", bytes.fromhex(body)))
    raise Malformed(f"unknown tag {tag[:20]!r}")


def describe_tensor(tensor: Any) -> Buffer:
    """A tensor's description and bytes; those of another device are copied here. Raises ``NotRepresentable``."""
    code = _TORCH_CODES.get(str(tensor.dtype).removeprefix("torch."))
    if code is None or "strided" not in str(tensor.layout) or tensor.requires_grad or tensor.device.type == "meta":
        raise NotRepresentable(f"a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}, requires_grad={tensor.requires_grad}")
    about: dict[str, Any] = {"dtype": code, "shape": list(tensor.shape)}
    order = sorted(range(tensor.dim()), key=lambda dim: (-tensor.stride(dim), dim))
    if order != list(range(tensor.dim())) and tensor.permute(order).is_contiguous() and not tensor.is_contiguous():
        about["order"] = order
        tensor = tensor.permute(order)
    if tensor.device.type != "cpu":
        about["device"] = tensor.device.type
        tensor = tensor.cpu()
    return Buffer(about, _bytes_of(tensor.detach().resolve_conj().resolve_neg().contiguous()))


def _bytes_of(tensor: Any) -> memoryview:
    """The memory of a tensor that is dense."""
    torch = sys.modules["torch"]
    if tensor.numel() == 0:
        return memoryview(b"")
    # Not reshape(-1): that leaves a single element the stride it had in its view, whatever that was.
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return memoryview((torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat).view(torch.uint8).numpy())


def describe_array(array: Any) -> Buffer:
    """An array's description and bytes. Raises ``NotRepresentable``."""
    numpy = sys.modules["numpy"]
    try:
        _array_item_bytes(array.dtype.str)
    except Malformed as error:
        raise NotRepresentable(f"an array: {error}") from None
    dense = numpy.ascontiguousarray(array)
    data = memoryview(b"") if dense.nbytes == 0 else memoryview(dense.reshape(-1).view(numpy.uint8))
    return Buffer({"array": array.dtype.str, "shape": list(array.shape)}, data)


def _array_item_bytes(name: Any) -> int:
    """The bytes per element of a numpy type string such as ``<f4``."""
    if not isinstance(name, str) or len(name) < 3 or name[0] not in "<>|" or not name[2:].isdecimal() or len(name) > 9:
        raise Malformed(f"unknown array type {str(name)[:40]!r}")
    size = int(name[2:])
    if name[1] in "SU" and size > 0:
        return size * (4 if name[1] == "U" else 1)
    if size not in _ARRAY_ITEM_BYTES.get(name[1], ()):
        raise Malformed(f"unknown array type {name!r}")
    return size


def build(buffer: Buffer) -> Any:
    """The tensor or array of *buffer*. Raises ``Malformed`` unless bytes and description agree."""
    about = buffer.about
    size = expected_bytes(about)
    data = memoryview(buffer.data)
    if data.nbytes != size:
        raise Malformed(f"{data.nbytes} bytes where {size} are described")
    if "array" in about:
        numpy = importlib.import_module("numpy")
        return numpy.frombuffer(_writable(data), dtype=numpy.dtype(about["array"])).reshape(about["shape"])
    return _build_tensor(about, data)


def _build_tensor(about: Mapping[str, Any], data: memoryview) -> Any:
    torch = importlib.import_module("torch")
    dtype = getattr(torch, TORCH_DTYPES[about["dtype"]][0], None)
    if dtype is None:
        raise Malformed(f"this torch has no {about['dtype']}")
    shape = about["shape"]
    order = about.get("order", list(range(len(shape))))
    if not isinstance(order, list) or sorted(order) != list(range(len(shape))):
        raise Malformed("no order of dimensions")
    if data.nbytes == 0:
        tensor = torch.empty([shape[dim] for dim in order], dtype=dtype)
    else:
        tensor = _reinterpret(torch, torch.frombuffer(_writable(data), dtype=torch.uint8), dtype).reshape([shape[dim] for dim in order])
    tensor = tensor.permute([order.index(dim) for dim in range(len(shape))])
    device = about.get("device", "cpu")
    if device == "cpu":
        return tensor
    if device not in ("cuda", "mps", "xpu", "npu") or not getattr(torch, device).is_available():
        raise Malformed(f"a tensor for the device {str(device)[:20]!r}, which is not here")
    return tensor.to(device)


def _reinterpret(torch: Any, flat: Any, dtype: Any) -> Any:
    if not dtype.is_complex:
        return flat.view(dtype)
    real = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}[dtype]
    return torch.view_as_complex(flat.view(real).reshape(-1, 2))


def _writable(data: memoryview) -> Any:
    """Tensors are made on writable memory, because nodes may change them; memory that others may read is copied."""
    return data if not data.readonly else bytearray(data)
