"""Loads one diffusion model in fp16 and in quantised formats, and compares bytes, load and step.

    python benchmarks/quantised.py [--family sd15] [--shrink 1] [--formats float8_e4m3fn,int8_tensorwise,nvfp4] [--side 32] [--steps 3]

Weights are random, in the published layout; the files lie in a temporary folder. Each row is one file, loaded and run in a process of its
own: bytes of the file, bytes kept in RAM, seconds to load (the best of three), seconds of a step (the median after one to warm up), each
also against fp16 in the same run. Needs comfy-kitchen.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PLAIN = "fp16"


def write(folder: pathlib.Path, family_name: str, shrink: int, formats: list[str]) -> dict[str, pathlib.Path]:
    """Files with the same weights in fp16 and in *formats*, by name."""
    import safetensors.torch
    import torch

    from benchmarks.make_checkpoint import checkpoint_layout, family, random_tensor
    from comfy.quantisation.formats import FORMATS, read_settings
    from comfy.quantisation.kitchen import layouts
    from comfy.quantisation.weights import stored_tensors

    sizes = family(family_name, shrink)
    generator = torch.Generator().manual_seed(0)
    layout = checkpoint_layout(sizes, ["unet"])
    tensors = {key.removeprefix("model.diffusion_model."): random_tensor(key, shape, generator).half() for key, shape in layout.items()}
    paths = {}
    for name in [PLAIN, *formats]:
        content = dict(tensors)
        if name != PLAIN:
            read_settings({"format": name})
            for key, value in tensors.items():
                if key.endswith(".weight") and value.ndim == 2:
                    content[key] = layouts().QuantizedTensor.from_float(value.float(), FORMATS[name].layout, scale="recalculate")
        paths[name] = folder / f"{name}.safetensors"
        safetensors.torch.save_file(stored_tensors(content), paths[name], sizes.metadata())
    return paths


def measure(path: str, side: int, steps: int) -> dict[str, float]:
    """Load *path* and run *steps* steps with latents of *side* squared."""
    sys.argv = ["quantised.py", "--cpu", "--no-ram-model-cache"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    import comfy.model_management
    import comfy.sd

    loads = []
    for _ in range(3):
        model = None
        started_s = time.perf_counter()
        model = comfy.sd.load_diffusion_model(path)
        loads.append(time.perf_counter() - started_s)
    comfy.model_management.load_models_gpu([model])
    network = model.model
    width = network.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn2.to_k.weight.shape[1]
    context = torch.randn(1, 77, width)
    extra = {"y": torch.randn(1, network.adm_channels)} if network.adm_channels else {}
    latent = torch.randn(1, 4, side, side)
    times = []
    with torch.inference_mode():
        for _ in range(steps + 1):
            started_s = time.perf_counter()
            network.apply_model(latent, torch.tensor([5.0]), c_crossattn=context, **extra)
            times.append(time.perf_counter() - started_s)
    return {
        "file_bytes": pathlib.Path(path).stat().st_size,
        "kept_bytes": model.model_size(),
        "load_s": min(loads),
        "step_s": statistics.median(times[1:]),
    }


def main() -> None:
    """Write the files, measure each, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="sd15")
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--formats", default="float8_e4m3fn,int8_tensorwise,mxfp8,nvfp4")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.side, asked.steps)))
        return
    with tempfile.TemporaryDirectory(prefix="quantised-") as folder:
        rows = {}
        for name, path in write(pathlib.Path(folder), asked.family, asked.shrink, asked.formats.split(",")).items():
            command = [sys.executable, __file__, "--measure", str(path), "--side", str(asked.side), "--steps", str(asked.steps)]
            rows[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print("| format | file MB | kept MB | load s | step s | kept | load | step |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
        base = rows[PLAIN]
        for name, row in rows.items():
            ratios = " | ".join(f"{row[key] / base[key]:.2f}" for key in ("kept_bytes", "load_s", "step_s"))
            megabytes = " | ".join(f"{row[key] / 1e6:.0f}" for key in ("file_bytes", "kept_bytes"))
            print(f"| {name} | {megabytes} | {row['load_s']:.2f} | {row['step_s']:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
