"""Compare models with an upstream ComfyUI checkout: same checkpoint, same inputs, same threads; outputs and speed side by side.

    python benchmarks/model_parity.py CHECKPOINT --upstream CHECKOUT [--python PYTHON] [--pythonpath DIR] [--threads 2] [--size 32]
        [--loads 6 [--unet-only]]

Both sides run this file's probe in a process of their own, with the model API that both have. Prints, per output, the largest difference
relative to the reference's largest value, and per operation the ratio of median times (above 1: this project is faster). ``--loads N``
instead only loads the file, alternating, each time in a fresh process, N times each after one that does not count: memory that nobody
touched before costs whoever comes first. What this project imports when the first model is loaded counts as "load".
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[1]
PROMPTS = {
    "plain": "a photo of a cat",
    "weighted": "a (red:1.4) house, ((old)) [grey] \\(quiet\\)",
    "empty": "",
    "two chunks": "many words in a row " * 25,
}


def probe(checkpoint: str, out: str, threads: int, size: int, repeats: int) -> None:
    """Run in the tree that is the current directory: write outputs to *out*.safetensors and timings to *out*.json.

    With 0 *repeats* the file is only loaded; with -1 too, as one that holds a UNet alone.
    """
    sys.path.insert(0, os.getcwd())
    sys.argv = [sys.argv[0], "--cpu"]
    began = time.perf_counter()
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    import comfy.sd

    times: dict[str, list[float]] = {}
    outputs: dict[str, object] = {}
    with torch.inference_mode():
        started, busy = time.perf_counter(), time.process_time()
        if repeats < 0:
            model, clip, vae = comfy.sd.load_diffusion_model(checkpoint), None, None
        else:
            model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(checkpoint)
        times["load"] = [time.perf_counter() - started]
        times["load, processor time"] = [time.process_time() - busy]
        times["imports and load"] = [time.perf_counter() - began]
        modules = (model.model, *(() if clip is None else (clip.cond_stage_model, vae.first_stage_model)))
        figures = {
            "peak GB after the load": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "weights kept, GB": sum(tensor.nbytes for module in modules for tensor in module.parameters()) / 2**30,
        }
        if repeats < 1:
            pathlib.Path(out + ".json").write_text(
                json.dumps({"seconds": {name: value[0] for name, value in times.items()}, "figures": figures})
            )
            return
        for name, text in PROMPTS.items():
            outputs[f"text {name}"], outputs[f"pooled {name}"] = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        clip.clip_layer(-2)
        outputs["text clip skip"] = clip.encode_from_tokens(clip.tokenize(PROMPTS["plain"]))
        _probe_network(model, outputs, times, size, repeats)
        _probe_autoencoder(vae, outputs, times, size, repeats)
    save_file({name: tensor.float().contiguous().clone() for name, tensor in outputs.items()}, out + ".safetensors")
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    pathlib.Path(out + ".json").write_text(json.dumps({"seconds": medians, "figures": figures}))


def _probe_network(model, outputs, times, size, repeats) -> None:
    import torch

    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    base = model.model
    generator = torch.Generator().manual_seed(7)
    latent = torch.randn(2, base.diffusion_model.in_channels, size, size, generator=generator)[:, :4]
    context = torch.cat([outputs["text plain"], outputs["text weighted"]])
    extra = {}
    if base.adm_channels:
        pooled = torch.cat([outputs["pooled plain"], outputs["pooled weighted"]])
        extra["y"] = base.encode_adm(pooled_output=pooled, device="cpu", width=512, height=640, crop_w=8, target_width=384)
    base.apply_model(latent, torch.tensor([4.0, 4.0]), c_crossattn=context, transformer_options={}, **extra)
    for sigma in (14.0, 3.0, 0.1):
        for _ in range(repeats):
            started = time.perf_counter()
            result = base.apply_model(latent, torch.tensor([sigma, sigma]), c_crossattn=context, transformer_options={}, **extra)
            times.setdefault(f"network, batch 2, {size}x{size}", []).append(time.perf_counter() - started)
        outputs[f"denoised sigma {sigma}"] = result
    odd = torch.randn(1, 4, size // 2 + 3, size // 2 + 1, generator=generator)
    one = {"y": extra["y"][:1]} if extra else {}
    outputs["denoised odd size"] = base.apply_model(odd, torch.tensor([2.0]), c_crossattn=context[:1], transformer_options={}, **one)
    outputs["denoised patched"] = base.apply_model(
        latent,
        torch.tensor([2.0, 2.0]),
        c_crossattn=context,
        transformer_options=_patches(outputs),
        control=_control(base, latent, extra),
        **extra,
    )


def _patches(outputs):
    """Hooks of every kind, with effects that depend on where they are called."""
    import torch

    calls = outputs.setdefault("hook calls", torch.zeros(8))

    def replace(q, k, v, options):
        calls[0] += options["transformer_index"] + options["block_index"] + options["dim_head"] + options["n_heads"]
        return q * 0.5 + torch.nn.functional.pad(v, (0, 0, 0, max(0, q.shape[1] - v.shape[1])))[:, : q.shape[1]]

    def attention(n, context, value, options):
        calls[1] += options["block"][1]
        return n * 1.01, context, value * 0.99

    def output(n, options):
        calls[2] += options["activations_shape"][1] + options["original_shape"][2]
        return n * 1.02

    def input_block(h, options):
        calls[3] += options["block"][1] * h.shape[1]
        return h * 0.99

    def output_block(h, skip, options):
        calls[4] += options["block"][1] * skip.shape[1]
        return h * 1.01, skip * 0.9

    def embedding(emb, width, options):
        calls[5] += width
        return emb * 1.1

    def middle(args):
        calls[6] += args["h"].shape[1]
        return {"h": args["h"] * 0.95}

    patches = {
        "attn1_patch": [attention],
        "attn2_patch": [attention],
        "attn1_output_patch": [output],
        "attn2_output_patch": [output],
        "input_block_patch": [input_block],
        "input_block_patch_after_skip": [input_block],
        "output_block_patch": [output_block],
        "emb_patch": [embedding],
        "middle_block_after_patch": [middle],
        "middle_patch": [output],
    }
    places = [("input", 4), ("middle", 0), ("output", 3), ("input", 5, 0)]
    return {"patches": patches, "patches_replace": {"attn2": dict.fromkeys(places, replace), "attn1": {("output", 4, 0): replace}}}


def _control(base, latent, extra):
    """Residuals for every skip connection and the middle, as a ControlNet gives them."""
    import torch

    shapes = []

    def note(h, options):
        shapes.append(h.shape)
        return h

    context = torch.zeros(2, 77, base.model_config.unet_config["context_dim"])
    base.apply_model(
        latent, torch.tensor([2.0, 2.0]), c_crossattn=context, transformer_options={"patches": {"input_block_patch": [note]}}, **extra
    )
    generator = torch.Generator().manual_seed(9)
    residuals = [torch.randn(shape, generator=generator) * 0.1 for shape in shapes]
    return {"input": [], "middle": [torch.randn(shapes[-1], generator=generator) * 0.1], "output": residuals}


def _probe_autoencoder(vae, outputs, times, size, repeats) -> None:
    import torch

    latent = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(11)) * 5
    vae.decode(latent)
    for _ in range(repeats):
        started = time.perf_counter()
        picture = vae.decode(latent)
        times.setdefault("decode", []).append(time.perf_counter() - started)
        started = time.perf_counter()
        outputs["encoded"] = vae.encode(picture)
        times.setdefault("encode", []).append(time.perf_counter() - started)
    outputs["picture"] = picture
    outputs["picture, odd crop, encoded"] = vae.encode(picture[:, 3:, 5:])
    outputs["picture in tiles"] = vae.decode_tiled(latent, tile_x=16, tile_y=16, overlap=4)
    outputs["encoded in tiles"] = vae.encode_tiled(picture, tile_x=128, tile_y=128, overlap=32)


def run_side(tree: str, python: str, pythonpath: str, arguments: list[str]) -> None:
    """Run the probe with *tree* as the current directory. Raises ``CalledProcessError`` when it fails."""
    environment = {**os.environ, "PYTHONPATH": pythonpath, "OMP_NUM_THREADS": arguments[2]}
    subprocess.run([python, str(pathlib.Path(__file__).resolve()), "--probe", *arguments], cwd=tree, env=environment, check=True)


def main() -> None:
    """Read the command line, run both sides and print the table."""
    if sys.argv[1:2] == ["--probe"]:
        checkpoint, out, threads, size, repeats = sys.argv[2:]
        probe(checkpoint, out, int(threads), int(size), int(repeats))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--upstream", required=True, help="a ComfyUI checkout")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs it")
    parser.add_argument("--pythonpath", default="", help="PYTHONPATH for it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=32, help="side of the latents")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loads", type=int, help="only load, so many times on each side")
    parser.add_argument("--unet-only", action="store_true", help="with --loads: the file holds a UNet alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        common = [str(given.threads), str(given.size), str((-1 if given.unet_only else 0) if given.loads else given.repeats)]
        checkpoint = os.path.abspath(given.checkpoint)
        if given.loads:
            compare_loads(given, checkpoint, folder, common)
            return
        run_side(given.upstream, given.python, given.pythonpath, [checkpoint, f"{folder}/reference", *common])
        run_side(str(PROJECT), sys.executable, "", [checkpoint, f"{folder}/own", *common])
        report(folder)


def compare_loads(given: argparse.Namespace, checkpoint: str, folder: str, common: list[str]) -> None:
    """Load on both sides in turn and print times, their ratios and memory."""
    trees = ((given.upstream, given.python, given.pythonpath), (str(PROJECT), sys.executable, ""))
    results: list[list[dict]] = [[], []]
    for number in range(given.loads + 1):
        for side in ((0, 1), (1, 0))[number % 2]:
            run_side(*trees[side], [checkpoint, f"{folder}/load", *common])
            if number:
                results[side].append(json.loads(pathlib.Path(f"{folder}/load.json").read_text()))
    for group in ("seconds", "figures"):
        for name in results[0][0][group]:
            theirs, ours = ([result[group][name] for result in side] for side in results)
            print(
                f"{name:24} upstream {statistics.median(theirs):.2f}, here {statistics.median(ours):.2f}, median of the ratios "
                f"{statistics.median(a / b for a, b in zip(theirs, ours)):.2f}   "
                f"({', '.join(f'{a:.2f}/{b:.2f}' for a, b in zip(theirs, ours))})",
                flush=True,
            )


def report(folder: str) -> None:
    """Print the comparison of what both sides left in *folder*."""
    from safetensors.torch import load_file

    reference, own = load_file(f"{folder}/reference.safetensors"), load_file(f"{folder}/own.safetensors")
    for name in reference:
        if reference[name].shape != own[name].shape:
            print(f"{name:32} shapes differ: {list(own[name].shape)} instead of {list(reference[name].shape)}")
            continue
        largest = float(reference[name].abs().max()) or 1.0
        print(f"{name:32} {float((reference[name] - own[name]).abs().max()) / largest:.1e}   std {float(reference[name].std()):.3f}")
    theirs, ours = (json.loads(pathlib.Path(f"{folder}/{side}.json").read_text()) for side in ("reference", "own"))
    for name, seconds in theirs["seconds"].items():
        print(f"{name:32} upstream {seconds:.3f} s, here {ours['seconds'][name]:.3f} s, ratio {seconds / ours['seconds'][name]:.2f}")
    for name, value in theirs["figures"].items():
        print(f"{name:32} upstream {value:.2f}, here {ours['figures'][name]:.2f}")


if __name__ == "__main__":
    main()
