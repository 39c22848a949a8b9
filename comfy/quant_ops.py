"""Names of quantised tensors that node packs import or ask tensors for; no tensor of this server is one of them."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "quantised weights",
    "QuantizedTensor:torch.Tensor QuantizedLayout:object TensorCoreFP8Layout:QuantizedLayout "
    "TensorCoreFP8E4M3Layout:QuantizedLayout TensorCoreFP8E5M2Layout:QuantizedLayout TensorCoreNVFP4Layout:QuantizedLayout "
    "TensorCoreMXFP8Layout:QuantizedLayout TensorWiseINT8Layout:QuantizedLayout ck:object register_layout_op() "
    "register_layout_class() get_layout_class() register_generic_util()",
)

QUANT_ALGOS: dict[str, object] = {}
