"""Peak memory of loading, sampling and decoding videos, and saving one of 200 frames at 720p, here and with a ComfyUI checkout.

    python benchmarks/families/videos.py --folder DIR --upstream CHECKOUT [--python PYTHON] [--pythonpath DIR]
        [--only wan,hunyuan,ltx,saving] [--rounds 3] [--check]

Wan 14B, HunyuanVideo 1.5 and LTX-Video (2B) have layers of the published shapes and one block each, their autoencoders are whole; files of
random bfloat16 weights are made in DIR when they are not there (up to 1 GB each). Each measurement is a process of its own, the two sides
by turns; what it reports of a phase is how far the resident memory rose during it above what it was when the imports were done, as the
kernel saw it (the mark is set back between the phases), files in the page cache that are mapped counted too. The saved video is one tall
picture that is scrolled: its frames share memory, so what comes on top is what saving takes. Bounds (``--check`` fails when one is
broken), of the medians: peak memory at most ComfyUI's in every phase; saving at least as fast, and with 200 frames no more memory than
with 50.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

PROJECT = pathlib.Path(__file__).resolve().parents[2]
NOISE_GB, NOISE = 0.02, 0.05  # that two runs of a side differ by
FRAMES, FEW, RATE, SAVED = 200, 50, 24, (720, 1280)
Shapes = dict[str, tuple[int, ...]]

WAN: Shapes = {
    "head.modulation": (1, 2, 5120),
    "head.head.weight": (64, 5120),
    "blocks.0.ffn.0.weight": (13824, 5120),
    "time_embedding.0.weight": (5120, 256),
    "text_embedding.0.weight": (5120, 4096),
    "patch_embedding.weight": (5120, 16, 1, 2, 2),
    "blocks.0.": (),
}
HUNYUAN: Shapes = {
    "txt_in.individual_token_refiner.blocks.0.norm1.weight": (2048,),
    "txt_in.input_embedder.weight": (2048, 3584),
    "img_in.proj.weight": (2048, 65, 1, 1, 1),
    "final_layer.linear.weight": (32, 2048),
    "vision_in.proj.0.weight": (1152,),
    "byt5_in.fc1.weight": (2048, 1472),
    "cond_type_embedding.weight": (3, 2048),
    "double_blocks.0.": (),
}
LTX: Shapes = {
    "adaln_single.emb.timestep_embedder.linear_1.bias": (2048,),
    "caption_projection.linear_1.weight": (2048, 4096),
    "patchify_proj.weight": (2048, 128),
    "transformer_blocks.0.attn2.to_k.weight": (2048, 2048),
    "transformer_blocks.0.": (),
}
# Network, tensors that tell the autoencoder and their sides, width of the text, latent (channels, frames, rows, columns).
FAMILIES: dict[str, tuple[Shapes, str, int, tuple[int, int, int, int]]] = {
    "wan": (WAN, "wan", 4096, (16, 3, 24, 24)),
    "hunyuan": (HUNYUAN, "hunyuan", 3584, (32, 3, 12, 12)),
    "ltx": (LTX, "ltx", 4096, (128, 2, 16, 16)),
}


def random_tensor(name: str, shape: tuple[int, ...], generator: object) -> object:
    """A bfloat16 value: matrices normal by fan-in, scales about one, biases small."""
    import torch

    fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 100
    value = torch.empty(shape, dtype=torch.bfloat16).normal_(0, fan_in**-0.5, generator=generator)
    return value + 1 if name.endswith(("gamma", "norm.weight", "norm_q.weight", "norm_k.weight", "std-of-means")) else value


def write_network(shapes: Shapes, path: pathlib.Path) -> None:
    """Random weights for the network that *shapes* tell."""
    import torch
    from safetensors.torch import save_file

    from comfy.dit.registry import read_transformer_config
    from comfy.supported_models import models

    config = read_transformer_config(shapes)
    if config is None:
        raise ValueError(f"{path.name}: no family has these shapes")
    kind = next(one for one in models if one.matches(config))
    network = kind(config).get_model({}, device=torch.device("meta")).diffusion_model
    generator = torch.Generator().manual_seed(0)
    save_file({name: random_tensor(name, tuple(value.shape), generator) for name, value in network.named_parameters()}, str(path))


def write_autoencoder(name: str, path: pathlib.Path) -> None:
    """Random weights for the published autoencoder of *name*."""
    import torch
    from safetensors.torch import save_file

    sys.path[:0] = [str(PROJECT / "tests-unit" / "comfy_test"), str(PROJECT / "tests-unit" / "comfy_test" / "videos")]
    from hunyuan_files import hunyuan_vae_layout
    from wan_vae_files import wan_vae_layout

    from comfy.images.ltx_vae import DECODERS, ENCODERS, LtxAutoencoder, LtxVaeConfig

    if name == "wan":
        shapes = wan_vae_layout(width=96)
    elif name == "hunyuan":
        shapes = hunyuan_vae_layout(widths=(128, 256, 512, 1024, 1024))
    else:
        blocks = {"encoder_blocks": ENCODERS["0.9"], "decoder_blocks": DECODERS["0.9"]}
        network = LtxAutoencoder(LtxVaeConfig({"patch_size": 4, "latent_log_var": "uniform", "timestep_conditioning": False, **blocks}))
        shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    save_file({key: random_tensor(key, shape, generator) for key, shape in shapes.items()}, str(path))


# In the processes that measure


def load_tree() -> None:
    """Make the current directory's ``comfy`` importable, on the CPU."""
    sys.path.insert(0, os.getcwd())
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()


def resident_gb(which: str) -> float:
    """This process's resident memory now ("VmRSS"), or the most since the mark was set back ("VmHWM")."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(which)) / 2**20


def risen_gb(start_gb: float, run: Callable[[], object]) -> tuple[float, float, object]:
    """(how far memory rose above *start_gb* while *run* ran, its seconds, what it returned)."""
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    started = time.perf_counter()
    result = run()
    return resident_gb("VmHWM") - start_gb, time.perf_counter() - started, result


def probe_model(name: str, network: str, vae: str) -> dict[str, float]:
    """Load, sample three steps, decode: how far memory rises in each, and the decoded video's mean to hold the sides against each other."""
    load_tree()
    import torch

    import comfy.sample
    import comfy.sd
    import folder_paths
    import nodes

    folder_paths.add_model_folder_path("vae", os.path.dirname(vae))
    _, _, context, shape = FAMILIES[name]
    generator = torch.Generator().manual_seed(1)
    details = {"attention_mask": torch.ones(1, 64, dtype=torch.long), "pooled_output": torch.zeros(1, 768)}  # ComfyUI asks for the latter
    text = [[torch.randn(1, 64, context, generator=generator), details]]
    noise, empty = torch.randn(1, *shape, generator=generator), torch.zeros(1, *shape)
    steps = (3, 1.0, "euler", "simple", text, text, empty)
    with torch.inference_mode():
        start_gb = resident_gb("VmRSS")
        load_gb, load_s, model = risen_gb(start_gb, lambda: comfy.sd.load_diffusion_model(network))
        sample_gb, sample_s, latent = risen_gb(start_gb, lambda: comfy.sample.sample(model, noise, *steps, disable_pbar=True, seed=1))
        loader = nodes.VAELoader
        vae_gb, vae_s, (decoder, *_) = risen_gb(start_gb, lambda: getattr(loader(), loader.FUNCTION)(vae_name=os.path.basename(vae)))
        decode_gb, decode_s, video = risen_gb(start_gb, lambda: decoder.decode(latent))
    figures = {"load, GB": load_gb, "sample, GB": sample_gb, "load the autoencoder, GB": vae_gb, "decode, GB": decode_gb}
    seconds = {"load, s": load_s, "sample, s": sample_s, "load the autoencoder, s": vae_s, "decode, s": decode_s}
    return {**figures, **seconds, "mean": float(video.float().mean()), "deviation": float(latent.float().std())}


def probe_saving(frames: int) -> dict[str, float]:
    """Save *frames* of a scrolled picture as SaveVideo does."""
    load_tree()
    from fractions import Fraction

    import torch

    from comfy_api.latest import InputImpl, Types

    height, width = SAVED
    rows = torch.linspace(0, 60, height + 2 * FRAMES)[:, None, None]
    tall = 0.5 + 0.5 * torch.sin(rows + torch.linspace(0, 40, width)[None, :, None] + torch.tensor([0.0, 1.0, 2.0]))
    images = tall.as_strided((frames, height, width, 3), (2 * width * 3, width * 3, 3, 1))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = os.path.join(folder, "saved.mp4")
        video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(RATE)))
        risen, seconds, _ = risen_gb(resident_gb("VmRSS"), lambda: video.save_to(path))
        return {"memory, GB": risen, "s": seconds, "file, MB": os.path.getsize(path) / 1e6}


# In the one that compares


def compared(options: argparse.Namespace, arguments: list[str]) -> dict[str, dict[str, float]]:
    """The medians of what both sides report for *arguments*."""
    sides = {"ours": (PROJECT, sys.executable, ""), "theirs": (pathlib.Path(options.upstream), options.python, options.pythonpath)}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(options.rounds):
        for side in sorted(sides, reverse=number % 2 == 1):
            tree, python, pythonpath = sides[side]
            command, environment = [python, __file__, "--probe", *arguments], {**os.environ, "PYTHONPATH": pythonpath}
            done = subprocess.run(command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    return {side: {what: statistics.median(one[what] for one in several) for what in several[0]} for side, several in found.items()}


def compare_model(name: str, options: argparse.Namespace) -> bool:
    """Print a family's table; whether its bounds hold."""
    folder, (shapes, autoencoder, *_) = pathlib.Path(options.folder).absolute(), FAMILIES[name]
    network, vae = folder / f"videos-{name}.safetensors", folder / f"videos-{autoencoder}-vae.safetensors"
    if not network.exists():
        write_network(shapes, network)
    if not vae.exists():
        write_autoencoder(autoencoder, vae)
    medians = compared(options, [name, str(network), str(vae)])
    print(f"\n{name}: network of {network.stat().st_size / 2**30:.2f} GiB, autoencoder of {vae.stat().st_size / 2**30:.2f} GiB\n")
    print("| what | ours | ComfyUI's | ours / ComfyUI's |\n| --- | ---: | ---: | ---: |")
    for what, ours in medians["ours"].items():
        theirs = medians["theirs"][what]
        print(f"| {what} | {ours:.3f} | {theirs:.3f} | {ours / theirs:.2f} |")
    sys.stdout.flush()
    return all(ours <= medians["theirs"][what] + NOISE_GB for what, ours in medians["ours"].items() if what.endswith("GB"))


def compare_saving(options: argparse.Namespace) -> bool:
    """Print what saving takes; whether the bounds hold."""
    print(f"\nsaving at {SAVED[1]} x {SAVED[0]}\n")
    print("| frames | what | ours | ComfyUI's | ours / ComfyUI's |\n| ---: | --- | ---: | ---: | ---: |")
    by_frames = {frames: compared(options, ["saving", str(frames)]) for frames in (FEW, FRAMES)}
    for frames, medians in by_frames.items():
        for what, ours in medians["ours"].items():
            print(f"| {frames} | {what} | {ours:.3f} | {medians['theirs'][what]:.3f} | {ours / medians['theirs'][what]:.2f} |")
    sys.stdout.flush()
    many, few = by_frames[FRAMES], by_frames[FEW]["ours"]
    flat = many["ours"]["memory, GB"] <= few["memory, GB"] + NOISE_GB
    return flat and many["ours"]["s"] <= many["theirs"]["s"] * (1 + NOISE)


def main() -> int:
    """Compare what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--pythonpath", default="")
    parser.add_argument("--only", default=",".join([*FAMILIES, "saving"]))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    held = {name: compare_saving(options) if name == "saving" else compare_model(name, options) for name in options.only.split(",")}
    broken = [name for name, holds in held.items() if not holds]
    print(f"\nbounds {'BROKEN: ' + ', '.join(broken) if broken else 'hold'} ({NOISE_GB} GB and {NOISE} of a time for noise)")
    return 1 if broken and options.check else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        given = sys.argv[2:]
        print(json.dumps(probe_saving(int(given[1])) if given[0] == "saving" else probe_model(*given)))
        sys.exit()
    sys.exit(main())
