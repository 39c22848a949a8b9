"""What reading ahead hides: a cold prompt with three loaders, and two models in turn through a queue; each with and without, in one run.

    python benchmarks/read_ahead.py --folder DIR [--rate MB] [--only cold,disk,real,turns] [--check] [--keep]

Files are made in DIR and deleted at the end: SDXL's text encoders (fp16, 1.6 GB), a diffusion model of SDXL's widths with fewer transformer
layers (fp16, 1.7 GB), an autoencoder (0.2 GB), and, for the turns, two checkpoints of half SD 1.5's width (0.4 GB each); 4.4 GB of disk,
3.6 GB without the turns, 0.9 GB with nothing else; 5 GB of RAM.
Servers are started with ``--no-read-ahead`` and without; a pack (``limited_reads.py``) limits their reads to --rate:

cold: each open file by itself, as network volumes do that limit every connection. Bound: 0.75 times the time without.
disk: all reads together. Side by side gains nothing there; only what is computed meanwhile is hidden.
real: no limit; the files' pages are dropped from the page cache before. Shows the machine's own disk.
turns: ten prompts that use two models in turn, with room for one of them in the RAM model cache. Bound: 70 % of the reading is hidden.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "tests"), str(PROJECT / "benchmarks"), str(PROJECT)]

import make_checkpoint  # noqa: E402
import torch  # noqa: E402
from live_server import LiveServer  # noqa: E402
from make_checkpoint import CLIP_G, CLIP_L, UNETS, VAE, checkpoint_layout, clip_layout, family, unet_layout, vae_layout  # noqa: E402
from picture_prompts import node, text_to_picture  # noqa: E402

COLD_BOUND, HIDDEN_BOUND = 0.75, 0.70
TURNS = 10
RAM_MB, ROOM_FOR_ONE = 6000, 1.3
NOISE = 1 << 22


def quick_tensor(key: str, shape: tuple[int, ...], generator: torch.Generator, gain: float = 1.0) -> torch.Tensor:
    """As ``make_checkpoint.random_tensor``, but large ones repeat a block of noise: only their size matters here."""
    count = torch.Size(shape).numel()
    if count <= NOISE:
        return random_tensor(key, shape, generator, gain)
    noise = random_tensor(key, (shape[0], NOISE // shape[0]), generator, gain).flatten()
    scale = (NOISE / count) ** 0.5
    return noise.repeat(-(-count // len(noise)))[:count].mul_(scale).view(shape)


random_tensor = make_checkpoint.random_tensor


def make_files(folder: pathlib.Path, only: list[str]) -> dict[str, pathlib.Path]:
    """The files that *only* some of the measurements need, by their place below ``models``, made where they are missing."""
    half = family("sd15", 2)
    layouts: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "text_encoders/l.safetensors": (clip_layout(CLIP_L), {}),
        "text_encoders/g.safetensors": (clip_layout(CLIP_G), {}),
        "diffusion_models/unet.safetensors": (unet_layout(UNETS["sdxl-light"]), {}),
        "vae/vae.safetensors": (vae_layout(VAE), {}),
        "checkpoints/a.safetensors": (checkpoint_layout(half), half.metadata()),
        "checkpoints/b.safetensors": (checkpoint_layout(half), half.metadata()),
    }
    kinds = ["checkpoints"] * ("turns" in only) + ["text_encoders", "diffusion_models", "vae"] * (only != ["turns"])
    layouts = {name: layout for name, layout in layouts.items() if name.split("/")[0] in kinds}
    make_checkpoint.random_tensor = quick_tensor
    for number, (name, (layout, metadata)) in enumerate(layouts.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            print(f"making {path}", flush=True)
            make_checkpoint.write_checkpoint(str(path), layout, number, metadata=metadata)
    os.sync()
    return {name: folder / name for name in layouts}


def drop_pages(paths: dict[str, pathlib.Path]) -> None:
    """Have none of the files in the page cache."""
    for path in paths.values():
        number = os.open(path, os.O_RDONLY)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(number)


@contextmanager
def server(paths: dict[str, pathlib.Path], limit: dict[str, str] | None, ram_mb: int, *flags: str) -> Iterator[LiveServer]:
    """A server over the files that has imported all it needs and holds no model."""
    with tempfile.TemporaryDirectory() as name:
        base = pathlib.Path(name)
        for place, path in paths.items():
            target = base / "models" / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())
        starter = PROJECT / "models" / "checkpoints" / "starter-digits.safetensors"
        (base / "models" / "checkpoints").mkdir(parents=True, exist_ok=True)
        shutil.copy(starter, base / "models" / "checkpoints")
        if limit is not None:
            (base / "custom_nodes").mkdir()
            shutil.copy(PROJECT / "benchmarks" / "limited_reads.py", base / "custom_nodes")
        made = LiveServer(base, "--ram-model-cache-mb", str(ram_mb), "--fp16-unet", *flags, environment=limit, cold=True)
        try:
            made.run(text_to_picture(starter.name, 1, "a", steps=1), timeout_s=600)
            made.post("/free", {"unload_models": True, "free_memory": True})
            while made.get("/caches")["models"]["entries"]:
                time.sleep(0.05)
            drop_pages(paths)
            yield made
        finally:
            made.stop()


def three_loaders(words: int) -> dict[str, Any]:
    """A prompt whose text encoder, diffusion model and autoencoder come from files of their own; its text has *words* words."""
    prompt = text_to_picture("", 1, "house " * words, "grey " * words, steps=2)
    prompt["model"] = node("UNETLoader", unet_name="unet.safetensors", weight_dtype="default")
    prompt["clip"] = node("DualCLIPLoader", clip_name1="l.safetensors", clip_name2="g.safetensors", type="sdxl")
    prompt["vae"] = node("VAELoader", vae_name="vae.safetensors")
    for name in ("positive", "negative"):
        prompt[name]["inputs"]["clip"] = ["clip", 0]
    prompt["decode"]["inputs"]["vae"] = ["vae", 0]
    return prompt


def finished(one: LiveServer, prompt_id: str) -> list[dict[str, Any]]:
    """The receipts of a prompt, once it has ended well."""
    while not (entry := one.get(f"/history/{prompt_id}")):
        time.sleep(0.02)
    if entry[prompt_id]["status"]["status_str"] != "success":
        raise SystemExit(f"a prompt failed: {entry[prompt_id]['status']['messages'][-1]}")
    receipts: list[dict[str, Any]] = entry[prompt_id].get("models", [])
    return receipts


def queued(one: LiveServer, prompts: list[dict[str, Any]]) -> tuple[float, list[dict[str, Any]]]:
    """Queue *prompts* at once; (seconds until all have ended, their receipts)."""
    began_s = time.perf_counter()
    ids = [one.post("/prompt", {"prompt": prompt})[1]["prompt_id"] for prompt in prompts]
    receipts = [receipt for prompt_id in ids for receipt in finished(one, prompt_id)]
    return time.perf_counter() - began_s, receipts


def shown(receipts: list[dict[str, Any]]) -> str:
    """One line about receipts."""
    return ", ".join(f"{one['model'].split()[0]} {one['tier']} {one['seconds']:.1f} s" for one in receipts)


def cold(title: str, paths: dict[str, pathlib.Path], limit: dict[str, str] | None, words: int) -> float:
    """The cold prompt without and with reading ahead; the second time over the first."""
    seconds = {}
    for flag in ("--no-read-ahead", ""):
        with server(paths, limit, RAM_MB, *([flag] if flag else [])) as one:
            seconds[flag], receipts = queued(one, [three_loaders(words)])
        print(f"{title}, {flag or 'read ahead'}: {seconds[flag]:.2f} s ({shown(receipts)})", flush=True)
    ratio = seconds[""] / seconds["--no-read-ahead"]
    print(f"{title}: {ratio:.2f} times the time without", flush=True)
    return ratio


def turns(paths: dict[str, pathlib.Path], limit: dict[str, str], steps: int) -> float:
    """Two models in turn, without and with; the share of the reading without it that was hidden with it."""
    prompts = [
        text_to_picture(f"{'ab'[number % 2]}.safetensors", number, f"house {number}", steps=steps, size=256) for number in range(TURNS)
    ]
    room_mb = round(ROOM_FOR_ONE * paths["checkpoints/a.safetensors"].stat().st_size / 2**20)
    seconds, of_reads, reads = {}, {}, {}
    for flag in ("--no-read-ahead", ""):
        with server(paths, limit, room_mb, *([flag] if flag else [])) as one:
            seconds[flag], receipts = queued(one, prompts)
        of_reads[flag] = sum(receipt["seconds"] for receipt in receipts if receipt["tier"] in ("disk", "ahead"))
        hidden = sum(receipt["seconds"] for receipt in receipts if receipt["tier"] == "ahead")
        reads[flag] = [receipt["model"] for receipt in receipts if receipt["tier"] in ("disk", "ahead") and receipt["bytes"]]
        title = flag or "read ahead"
        print(f"in turn, {title}: {seconds[flag]:.1f} s, {len(reads[flag])} parts read, {hidden:.1f} s hidden", flush=True)
    without_s = of_reads["--no-read-ahead"]
    share = hidden / without_s
    print(f"in turn: {share:.0%} of {without_s:.1f} s of reading hidden")
    print(f"in turn: the same parts were read: {reads[''] == reads['--no-read-ahead']}", flush=True)
    return share


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--rate", type=float, default=100, help="MB/s (default: 100)")
    parser.add_argument("--only", default="cold,disk,real,turns")
    parser.add_argument("--words", type=int, default=150, help="length of the cold prompt's texts")
    parser.add_argument("--steps", type=int, default=12, help="of each prompt of the turns")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the files")
    given = parser.parse_args()
    only, broken = given.only.split(","), []
    paths = make_files(given.folder, only)
    limits = {name: {"READ_LIMIT_MB_S": str(given.rate), "READ_LIMIT_OF": name} for name in ("file", "disk")}
    try:
        if "cold" in only and cold("cold prompt, each file limited", paths, limits["file"], given.words) > COLD_BOUND:
            broken.append(f"a cold prompt takes at most {COLD_BOUND} times the time without")
        if "disk" in only:
            cold("cold prompt, the disk limited", paths, limits["disk"], given.words)
        if "real" in only:
            cold("cold prompt, this machine's disk", paths, None, given.words)
        if "turns" in only and turns(paths, limits["disk"], given.steps) < HIDDEN_BOUND:
            broken.append(f"at least {HIDDEN_BOUND:.0%} of the reading are hidden")
    finally:
        for path in paths.values() if not given.keep else ():
            path.unlink()
    if given.check and broken:
        raise SystemExit("does not hold: " + "; ".join(broken))


if __name__ == "__main__":
    main()
