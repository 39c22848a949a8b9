"""Reading and writing tensors by name: safetensors, and pickled checkpoints restricted to plain tensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy.families.model_errors import ModelFileError
from comfy.lazy_import import lazy_module
from comfy.units import MIB
from comfy.weight_files.spare_memory import spare_memory
from utils.whole_files import partial_beside

if TYPE_CHECKING:
    from torch import Tensor

quantised = lazy_module("comfy.quantisation.weights")
reading = lazy_module("comfy.weight_files.reader")
safetensors_torch = lazy_module("safetensors.torch")
torch = lazy_module("torch")

SAFETENSORS_EXTENSIONS = (".safetensors", ".sft")
HEADER_LIMIT_BYTES = 100 * MIB


class FileTensors(dict[str, Any]):
    """Tensors by name, and the *path* of the file they came from."""

    def __init__(self, tensors: Mapping[str, Any], path: str) -> None:
        super().__init__(tensors)
        self.path = path


def load_torch_file(ckpt: str, safe_load: bool = False, device: Any = None, return_metadata: bool = False) -> Any:
    """Read the tensors of the file *ckpt* into a dict by name, on *device* (default CPU).

    ``.safetensors``/``.sft`` files are read as such; everything else as a pickle with ``weights_only=True``, of which the
    ``state_dict`` entry (or the only entry, if it is a dict) is taken. *safe_load* is accepted for old callers; loading is always
    safe. With *return_metadata* the result is ``(tensors, metadata or None)``. The dict is a :class:`FileTensors`. In inference mode, as in
    nodes, the tensors are of that mode: nodes make them the ``data`` of parameters made there, which torch takes from no others. Raises
    ``OSError``, and ``ModelFileError`` (a ``ValueError``) that names the file when it is damaged, incomplete or not what its extension
    says. Blocks on disk.
    """
    device = torch.device("cpu") if device is None else device
    spare_memory().release()  # what follows allocates its own
    if str(ckpt).lower().endswith(SAFETENSORS_EXTENSIONS):
        tensors, metadata = read_safetensors(ckpt, str(device))
        if torch.is_inference_mode_enabled():
            tensors = {name: tensor if tensor.is_inference() else _over_its_memory(tensor) for name, tensor in tensors.items()}
    else:
        with torch.no_grad():
            tensors, metadata = _read_pickle(ckpt, device), None
    named = FileTensors(tensors, str(ckpt))
    return (named, metadata) if return_metadata else named


def _over_its_memory(tensor: Tensor) -> Tensor:
    """A tensor of the present mode with the memory of *tensor*."""
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def read_safetensors(path: str, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """The tensors and the metadata of a safetensors file, whatever its extension. Raises as ``load_torch_file`` does."""
    with reading.WeightReader(path) as reader:
        tensors = reader.read(reader.header.entries)
        metadata = dict(reader.header.metadata) or None
    return {name: tensor.to(device) for name, tensor in tensors.items()}, metadata


def unpickled(path: str, device: Any = "cpu") -> Any:
    """What the PyTorch file *path* holds, its tensors on *device*; nothing but tensors, numbers, texts and plain containers.

    Raises ``OSError``, and ``ModelFileError`` naming the file for everything else that a damaged or foreign file can cause.
    """
    try:
        with torch.serialization.safe_globals([torch.nn.ParameterDict]):  # as early trainers of embeddings wrote
            return torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a stranger's bytes make of a reader
        lines = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        if type(error).__name__ != "UnpicklingError":
            raise ModelFileError(f"{path} could not be read as a PyTorch checkpoint: {reason}. Copy or download it again.") from error
        raise ModelFileError(
            f"{path} holds more than tensors, or is not a PyTorch file, and was not opened, as that could run code from it. "
            f"Convert it to safetensors. ({reason})"
        ) from error


def _read_pickle(path: str, device: Any) -> dict[str, Any]:
    content = unpickled(path, device)
    if not isinstance(content, Mapping):
        raise ModelFileError(f"{path} holds a {type(content).__name__}, not tensors by name")
    if "state_dict" in content:
        inner = content["state_dict"]
        if not isinstance(inner, Mapping):
            raise ModelFileError(f"{path}: its state_dict is a {type(inner).__name__}, not tensors by name")
        return dict(inner)
    only = next(iter(content.values())) if len(content) == 1 else None
    return only if isinstance(only, dict) else dict(content)


def save_torch_file(sd: Mapping[str, Tensor], ckpt: str, metadata: Mapping[str, str] | None = None) -> None:
    """Write *sd* as safetensors to *ckpt*, all or nothing: an existing file stays until the new one is complete.

    Tensors must be contiguous and share no memory; quantised ones are written in their format. *metadata* values are strings. Blocks on
    disk.
    """
    tensors = quantised.stored_tensors(sd)
    with partial_beside(ckpt) as partial:
        safetensors_torch.save_file(tensors, partial, metadata=None if metadata is None else dict(metadata))


def safetensors_header(safetensors_path: str, max_size: int = HEADER_LIMIT_BYTES) -> bytes | None:
    """The JSON header of a safetensors file, or None when it says it is longer than *max_size* bytes.

    Raises ``ValueError`` for a file too short to have one.
    """
    with open(safetensors_path, "rb") as opened:
        prefix = opened.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{safetensors_path} has only {len(prefix)} bytes and cannot be a safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        return None if length > max_size else opened.read(length)


def calculate_parameters(sd: Mapping[str, Tensor], prefix: str = "") -> int:
    """The number of elements in the tensors whose names start with *prefix*."""
    return sum(tensor.nelement() for name, tensor in sd.items() if name.startswith(prefix))


def weight_dtype(sd: Mapping[str, Tensor], prefix: str = "") -> Any:
    """The dtype that most elements under *prefix* have, or None when there are none."""
    elements: dict[Any, int] = {}
    for name, tensor in sd.items():
        if name.startswith(prefix):
            elements[tensor.dtype] = elements.get(tensor.dtype, 0) + tensor.numel()
    return max(elements, key=lambda dtype: elements[dtype], default=None)


def state_dict_key_replace(state_dict: dict[str, Any], keys_to_replace: Mapping[str, str]) -> dict[str, Any]:
    """Rename entries of *state_dict* in place, old name to new; absent ones are skipped. Returns the same dict."""
    for old in [name for name in keys_to_replace if name in state_dict]:
        state_dict[keys_to_replace[old]] = state_dict.pop(old)
    return state_dict


def state_dict_prefix_replace(state_dict: dict[str, Any], replace_prefix: Mapping[str, str], filter_keys: bool = False) -> dict[str, Any]:
    """Move entries from one name prefix to another, removing them from *state_dict*.

    They land in *state_dict* itself, or with *filter_keys* in a new dict that holds nothing else. Returns where they landed.
    """
    target: dict[str, Any] = {} if filter_keys else state_dict
    for old, new in replace_prefix.items():
        for name in [name for name in state_dict if name.startswith(old)]:
            target[new + name[len(old) :]] = state_dict.pop(name)
    return target


def convert_sd_to(state_dict: dict[str, Tensor], dtype: Any) -> dict[str, Tensor]:
    """Cast every tensor of *state_dict* in place (entry by entry, so that memory peaks at one tensor). Returns the same dict."""
    for name in state_dict:
        state_dict[name] = state_dict[name].to(dtype)
    return state_dict


def detect_layer_quantization(state_dict: Mapping[str, Any], prefix: str) -> dict[str, bool] | None:
    """``{"mixed_ops": True}`` when a layer under *prefix* carries quantization data, else None."""
    marked = any(name.startswith(prefix) and name.endswith(".comfy_quant") for name in state_dict)
    return {"mixed_ops": True} if marked else None


def convert_old_quants(
    state_dict: dict[str, Any], model_prefix: str = "", metadata: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Bring the two older ways of marking scaled fp8 layers to one: a ``<layer>.comfy_quant`` tensor with the JSON settings.

    The older ways are a ``scaled_fp8`` entry with ``scale_weight``/``scale_input`` beside each weight, and a JSON table in the
    file's metadata. Returns the (possibly new) dict and the metadata.
    """
    metadata = {} if metadata is None else metadata
    marker = f"{model_prefix}scaled_fp8"
    if "_quantization_metadata" in metadata:
        layers = json.loads(metadata["_quantization_metadata"])["layers"]
    elif marker in state_dict:
        state_dict, layers = _rename_scaled_layers(state_dict, model_prefix, marker)
    else:
        return state_dict, metadata
    for layer, settings in layers.items():
        state_dict[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(settings).encode("utf-8")), dtype=torch.uint8)
    return state_dict, metadata


def _rename_scaled_layers(state_dict: dict[str, Any], prefix: str, marker: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    settings: dict[str, Any] = {"format": "float8_e4m3fn"}
    if state_dict[marker].nelement() == 2:  # how files say that matrix products must run in full precision
        settings["full_precision_matrix_mult"] = True
    renamed: dict[str, Any] = {}
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in state_dict.items():
        if name == marker:
            continue
        layer, _, last = name.rpartition(".")
        if not name.startswith(prefix):
            renamed[name] = tensor
        elif last == "scale_weight" and layer:
            layers[layer] = dict(settings)
            renamed[f"{layer}.weight_scale"] = tensor
        elif last == "scale_input" and layer:
            if tensor.item() != 1.0:
                renamed[f"{layer}.input_scale"] = tensor
        else:
            renamed[name] = tensor
    return renamed, layers
