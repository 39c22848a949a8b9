"""Names of quantised tensors that node packs import or ask tensors for: comfy-kitchen's where it is installed, stand-ins elsewhere."""

from typing import Any

from comfy.placeholders import placeholders
from comfy.quantisation import kitchen
from comfy.quantisation.formats import FORMATS

_stand_in, __dir__ = placeholders(
    __name__,
    "quantised weights without comfy-kitchen",
    "QuantizedTensor:torch.Tensor QuantizedLayout:object TensorCoreFP8Layout:QuantizedLayout "
    "TensorCoreFP8E4M3Layout:QuantizedLayout TensorCoreFP8E5M2Layout:QuantizedLayout TensorCoreNVFP4Layout:QuantizedLayout "
    "TensorCoreMXFP8Layout:QuantizedLayout TensorWiseINT8Layout:QuantizedLayout AsymW4A8Int8Layout:QuantizedLayout "
    "ck:object register_layout_op() "
    "register_layout_class() get_layout_class() register_generic_util()",
)

QUANT_ALGOS: dict[str, dict[str, Any]] = {
    one.name: {"storage_t": one.stored, "parameters": {*one.scales}, "comfy_tensor_layout": one.layout} for one in FORMATS.values()
}


def __getattr__(name: str) -> Any:
    """The real one, or a stand-in."""
    if name in __dir__() and kitchen.is_installed():
        found = getattr(kitchen.layouts(), name, None)
        if found is not None:
            return found
    return _stand_in(name)
