"""Loads and samples with Flux.1, Qwen-Image and Z-Image of real layer shapes and few blocks, here and with a ComfyUI checkout.

    python benchmarks/families/speed.py --folder DIR --upstream CHECKOUT [--python PYTHON] [--pythonpath DIR] [--families flux,qwen,z]
        [--rounds 3] [--steps 4] [--side 32] [--check]

Files of random bfloat16 weights in the published names are made in DIR when they are not there (about 1 GB each). Each measurement is a
process of its own, the two sides by turns, with the file in the page cache ("warm") or dropped from it ("cold"); both load a small file of
the same family before, which brings the imports in. A step is the median time between two callbacks of the sampler. Bounds (``--check``
fails when one is broken), each of the medians over the rounds, ComfyUI's divided by ours: load and step at least 1, peak memory at least 1.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

PROJECT = pathlib.Path(__file__).resolve().parents[2]
TEXT_TOKENS, GIB = 64, 2**30
NOISE = 0.05  # of a ratio: what two runs of the same side differ by on a machine alone


def flux(width: int, context: int, vector: int, depth: int, single: int) -> dict[str, tuple[int, ...]]:
    """Shapes that tell a Flux.1's configuration."""
    return {
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "img_in.weight": (width, 64),
        "txt_in.weight": (width, context),
        "vector_in.in_layer.weight": (width, vector),
        "guidance_in.in_layer.weight": (width, 256),
        **{f"double_blocks.{number}.": () for number in range(depth)},
        **{f"single_blocks.{number}.": () for number in range(single)},
    }


def qwen(width: int, head: int, context: int, depth: int) -> dict[str, tuple[int, ...]]:
    """The same of a Qwen-Image."""
    return {
        "txt_norm.weight": (context,),
        "img_in.weight": (width, 64),
        "proj_out.weight": (64, width),
        "transformer_blocks.0.attn.norm_added_q.weight": (head,),
        **{f"transformer_blocks.{number}.": () for number in range(depth)},
    }


def z_image(width: int, context: int, inner: int, depth: int) -> dict[str, tuple[int, ...]]:
    """The same of a Z-Image."""
    return {
        "cap_embedder.1.weight": (width, context),
        "x_embedder.weight": (width, 64),
        "cap_pad_token": (1, width),
        "noise_refiner.0.attention.k_norm.weight": (128,),
        "noise_refiner.0.attention.qkv.weight": (3 * width, width),
        "noise_refiner.0.feed_forward.w1.weight": (inner, width),
        "noise_refiner.0.adaLN_modulation.0.weight": (4 * 256, 256),
        "noise_refiner.1.": (),
        **{f"layers.{number}.": () for number in range(depth)},
    }


# Of the published sizes, and of small ones: shapes, then width of the text's states and of the pooled ones.
REAL = {
    "flux": (flux(3072, 4096, 768, 2, 3), 4096, 768),
    "qwen": (qwen(3072, 128, 3584, 3), 3584, 0),
    "z": (z_image(3840, 2560, 10240, 3), 2560, 0),
}
SMALL = {"flux": flux(256, 64, 32, 1, 1), "qwen": qwen(64, 32, 48, 1), "z": z_image(256, 64, 320, 1)}


def write_file(shapes: dict[str, tuple[int, ...]], path: pathlib.Path) -> None:
    """Random bfloat16 weights for the network that *shapes* tell, in the published names."""
    import torch
    from safetensors.torch import save_file

    from comfy.dit.registry import read_transformer_config
    from comfy.supported_models import models

    config = read_transformer_config(shapes)
    if config is None:
        raise ValueError(f"{path.name}: no family has these shapes")
    kind = next(one for one in models if one.matches(config))
    network = kind(config).get_model({}, device=torch.device("meta")).diffusion_model
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, value in network.named_parameters():
        # The authors of Flux.1 say "scale" for a norm's weight.
        is_scale = "vector_in.in_layer.weight" in shapes and name.endswith("_norm.weight")
        published = f"{name.removesuffix('.weight')}.scale" if is_scale else name
        fan_in = value[0].numel() if value.ndim > 1 else 1
        tensor = torch.empty(value.shape, dtype=torch.bfloat16).normal_(0, fan_in**-0.5 if value.ndim > 1 else 0.1, generator=generator)
        tensors[published] = tensor + 1 if value.ndim == 1 and name.endswith("norm.weight") else tensor
    save_file(tensors, str(path))


# In the processes that measure


def load_tree() -> None:
    """Make the current directory's ``comfy`` importable, on the CPU."""
    sys.path.insert(0, os.getcwd())
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()


def set_page_cache(path: str, warm: bool) -> None:
    """Have all of *path* in the page cache, or nothing."""
    number = os.open(path, os.O_RDONLY)
    try:
        if not warm:
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            return
        while os.read(number, 8 << 20):
            pass
    finally:
        os.close(number)


def sample(model: object, context: int, pooled: int, side: int, steps: int, callback: Callable[..., None] | None = None) -> object:
    """*steps* steps of Euler with a text of ones, and what comes of them."""
    import torch

    import comfy.sample

    generator = torch.Generator().manual_seed(1)
    latent = torch.zeros(1, 16, side, side)
    details = {"guidance": 3.5, **({"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {})}
    text = [[torch.randn(1, TEXT_TOKENS, context, generator=generator), details]]
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    noise = torch.randn(latent.shape, generator=generator)
    return comfy.sample.sample(
        model, noise, steps, 1.0, "euler", "simple", text, text, latent, callback=callback, disable_pbar=True, seed=1
    )


def probe(path: str, small: str, warm: bool, context: int, pooled: int, side: int, steps: int, result: str) -> None:
    """Load *small* and then *path*, sample, and write figures and the latent to *result*."""
    load_tree()
    import torch
    from safetensors.torch import save_file

    import comfy.sd

    with torch.inference_mode():
        with contextlib.suppress(AssertionError, RuntimeError):  # ComfyUI knows some families at full size only
            comfy.sd.load_diffusion_model(small)
        set_page_cache(path, warm)
        started = time.perf_counter()
        model = comfy.sd.load_diffusion_model(path)
        load_s = time.perf_counter() - started
        loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ends: list[float] = []
        started = time.perf_counter()
        latent = sample(model, context, pooled, side, steps, lambda *_: ends.append(time.perf_counter()))
    figures = {
        "load, s": load_s,
        "first step, s": ends[0] - started,
        "step, s": statistics.median(after - before for before, after in zip(ends, ends[1:])),
        "peak of the load, GB": loaded / 2**20,
        "peak, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    save_file({"latent": latent.float().contiguous()}, result + ".safetensors")
    pathlib.Path(result).write_text(json.dumps(figures), encoding="utf-8")


# In the one that compares


def measured(tree: pathlib.Path, python: str, pythonpath: str, arguments: list[str]) -> tuple[dict[str, float], object]:
    """Figures and latent of one process in *tree*."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "figures.json")
        environment = {**os.environ, "PYTHONPATH": pythonpath}
        subprocess.run([python, __file__, "--probe", *arguments, result], cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL)
        return json.loads(pathlib.Path(result).read_text(encoding="utf-8")), load_file(result + ".safetensors")["latent"]


def compare(name: str, options: argparse.Namespace) -> bool:
    """Print a family's table; whether its bounds hold."""
    folder, (shapes, context, pooled) = pathlib.Path(options.folder).absolute(), REAL[name]
    paths = {kind: folder / f"speed-{name}-{kind}.safetensors" for kind in ("real", "small")}
    for kind, content in (("real", shapes), ("small", SMALL[name])):
        if not paths[kind].exists():
            print(f"making {paths[kind].name}", file=sys.stderr)
            write_file(content, paths[kind])
    sides = {"ours": (PROJECT, sys.executable, ""), "theirs": (pathlib.Path(options.upstream), options.python, options.pythonpath)}
    holds = True
    size_gib = paths["real"].stat().st_size / GIB
    print(f"\n{name}: {size_gib:.2f} GiB, latents of {options.side} x {options.side}, {TEXT_TOKENS} tokens of text\n")
    print("| page cache | what | ours | ComfyUI's | ComfyUI's / ours |\n| --- | --- | ---: | ---: | ---: |")
    for warm in (True, False):
        figures: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        latents = {}
        settings = [str(int(warm)), str(context), str(pooled), str(options.side), str(options.steps)]
        for number in range(options.rounds):
            for side in sorted(sides, reverse=number % 2 == 1):
                found, latents[side] = measured(*sides[side], [str(paths["real"]), str(paths["small"]), *settings])
                figures[side].append(found)
        for what in figures["ours"][0]:
            ours, theirs = (statistics.median(found[what] for found in figures[side]) for side in ("ours", "theirs"))
            holds &= theirs / ours >= 1 - NOISE
            print(f"| {'warm' if warm else 'cold'} | {what} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} |")
        apart = (latents["ours"] - latents["theirs"]).norm() / latents["theirs"].norm()
        print(f"| {'warm' if warm else 'cold'} | latents apart, of their norm | {apart:.1e} | | |")
    return holds


def main() -> int:
    """Compare what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--pythonpath", default="")
    parser.add_argument("--families", default=",".join(REAL))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    held = [compare(name, options) for name in options.families.split(",")]
    print(f"\nbounds {'hold' if all(held) else 'BROKEN'} (1, less {NOISE} for noise)")
    return 0 if all(held) or not options.check else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        file, small_file, is_warm, *numbers, written = sys.argv[2:]
        probe(file, small_file, is_warm == "1", *map(int, numbers), written)
        sys.exit()
    sys.exit(main())
