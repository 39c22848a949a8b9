"""Time and peak memory of decoding a long sound by Stable Audio 3's larger autoencoder, here and with a ComfyUI checkout.

    python benchmarks/families/long_sounds.py --upstream CHECKOUT [--python PYTHON] [--pythonpath DIR] [--seconds 30] [--rounds 3] [--check]

Its layers have the published shapes, four of twelve in the decoder; weights are random, in float32. Each measurement is a process of its
own, the two sides by turns; memory is how far the resident memory rose while it decoded. Bounds (``--check`` fails when one is broken), of
the medians: at most ComfyUI's time and memory.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
LAYERS, PLACES_PER_SECOND = 4, 44100 / 4096


def measure(seconds: float) -> dict[str, float]:
    """Seconds and GB that decoding a sound of *seconds* takes, by the autoencoder that Python finds."""
    import torch

    from comfy.cli_args import args

    args.cpu = True  # before the next import: ComfyUI looks for devices there
    import comfy.ops
    from comfy.ldm.audio.vae_sa3 import SA3AudioVAE

    sizes = {"channels": 256, "transformer_depths": LAYERS, "sinusoidal_blocks": 2, "sliding_window": [1, 1]}
    vae = SA3AudioVAE(**sizes, operations=comfy.ops.disable_weight_init).eval()
    numbers = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for value in (*vae.parameters(), *vae.buffers()):
            value.copy_(torch.randn(value.shape, generator=numbers) * 0.02)
        latent = torch.randn(1, 256, int(seconds * PLACES_PER_SECOND), generator=numbers)
        before, began = peak_gb(), time.perf_counter()
        vae.decode(latent)
        return {"seconds": time.perf_counter() - began, "gb": peak_gb() - before}


def peak_gb() -> float:
    """The most resident memory so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of the figure's unit: macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def run(tree: pathlib.Path, python: str, further: str, seconds: float) -> dict[str, float]:
    """:func:`measure` in a process of *tree*'s own. Raises ``CalledProcessError``."""
    path = os.pathsep.join(filter(None, [str(tree), further]))
    command = [python, str(pathlib.Path(__file__).resolve()), "--measure", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure both sides and print the medians; 1 where *check* was asked for and a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--upstream", type=pathlib.Path, help="a ComfyUI checkout")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs it")
    parser.add_argument("--pythonpath", default="", help="where the checkout's further packages lie")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the sound is")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured")
    parser.add_argument("--check", action="store_true", help="fail where a bound is broken")
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.measure)))
        return 0
    if given.upstream is None:
        parser.error("--upstream is needed")
    sides = {"here": (PROJECT, sys.executable, ""), "ComfyUI": (given.upstream.resolve(), given.python, given.pythonpath)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, side in sides.items():
            found[name].append(run(*side, given.seconds))
    medians = {name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in found.items()}
    for name, values in medians.items():
        print(f"{name:8} {values['seconds']:7.2f} s {values['gb']:6.2f} GB")
    return int(given.check and any(medians["here"][key] > value for key, value in medians["ComfyUI"].items()))


if __name__ == "__main__":
    sys.exit(main())
