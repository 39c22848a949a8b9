"""Runs in a ComfyUI checkout: python upstream_layers.py IN.safetensors OUT.safetensors.

IN holds an input ``x``, changed weights ``<kind>/changed`` and the tensors of a linear layer below ``<kind>/``; OUT gets each layer's
``<kind>/output`` and ``<kind>/patched``, the values of its weight after the changed ones were put in with seed 7.
"""

import sys
from types import SimpleNamespace

import safetensors.torch
import torch

if __name__ == "__main__":
    source, target = sys.argv[1:3]
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, ".")
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.ops
    import comfy.utils

    tensors = safetensors.torch.load_file(source)
    x = tensors.pop("x")
    config = SimpleNamespace(quant_config={"mixed_ops": True})
    operations = comfy.ops.pick_operations(None, torch.float32, load_device=torch.device("cpu"), model_config=config)
    results = {}
    for kind in sorted({key.partition("/")[0] for key in tensors}):
        own = {key.partition("/")[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{kind}/")}
        changed = own.pop("changed")
        own, _ = comfy.utils.convert_old_quants({f"u.{key}": tensor for key, tensor in own.items()}, "u.", {})
        layer = operations.Linear(x.shape[-1], changed.shape[0], device="cpu")
        layer.load_state_dict({key.removeprefix("u."): tensor for key, tensor in own.items()}, strict=False)
        with torch.inference_mode():
            results[f"{kind}/output"] = layer(x)
            patched = layer.set_weight(changed.clone(), seed=7, return_weight=True)
            results[f"{kind}/patched"] = patched.dequantize()
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in results.items()}, target)
