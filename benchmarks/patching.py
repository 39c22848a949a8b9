"""What patched models cost: cloning, attention replacements, fingerprints, and a LoRA added, added again, and at another strength.

    python benchmarks/patching.py [--folder DIR] [--shrink N] [--rank R] [--check] [--upstream CHECKOUT [--python PYTHON]]

A checkpoint in the shape of SD 1.5 (fp16, 2.1 GB; ``--shrink`` makes it narrower) and a LoRA for it are made in DIR if missing.
Everything runs in this process on the CPU, through the loaders, the RAM model cache and ``LoraLoader``'s functions; a step is not computed:
times end when the patched weights are in place. ``--upstream`` has a ComfyUI checkout do the same, by ``patching_upstream.py`` in a process
of its own (its Python by default this one; ``PYTHONPATH`` may lead to what it needs), in turn with this one where the two are compared, so
that a noisy machine is so for both; 14 GB of RAM. Each bound of ``--check`` compares figures of the same run.
"""

import argparse
import contextlib
import gc
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

import torch  # noqa: E402
from make_addons import lora_tensors  # noqa: E402
from make_checkpoint import checkpoint_layout, family, write_checkpoint  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
from comfy.cli_args import args  # noqa: E402
from comfy.loading.lora_files import load_lora_file  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfy.patch_identity.fingerprints import Fingerprints  # noqa: E402
from comfy.patching.patched_models import patched_models  # noqa: E402
from comfy.units import MIB  # noqa: E402

KEYS = (0, 686, 10_000)
REPLACEMENTS = 70
LORA_MIB = 200
FLAT, REPLACEMENTS_US, AGAIN_SHARE, COPY_SHARE, UPSTREAM_SHARE = 1.5, 100, 0.05, 0.5, 0.5
STRENGTHS = (0.5, 0.6, 0.7, 0.55, 0.65)
UPSTREAM, OTHER_STRENGTH = "ComfyUI: ", "LoRA, other strength (s)"


def fastest_us(action: Callable[[], Any], tries: int = 500) -> float:
    """Microseconds of the fastest of *tries* calls."""
    return min(_timed_s(action) for _ in range(tries)) * 1e6


def _timed_s(action: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    action()
    return time.perf_counter() - started_s


def cloning() -> dict[str, float]:
    """Microseconds of a clone by number of patched weights, and of a clone that gets attention replacements."""
    figures = {}
    host = torch.device("cpu")
    for count in KEYS:
        module = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1), requires_grad=False) for _ in range(count)])
        patcher = ModelPatcher(module, host, host)
        patcher.add_patches({str(index): (torch.zeros(1),) for index in range(count)})
        figures[f"clone, {count} patched weights (us)"] = fastest_us(patcher.clone)

    def replacing() -> None:
        clone = patcher.clone()
        for number in range(REPLACEMENTS):
            clone.set_model_attn2_replace(fastest_us, "input", number)

    figures[f"{REPLACEMENTS} attention replacements (us)"] = fastest_us(replacing) - figures[f"clone, {KEYS[-1]} patched weights (us)"]
    return figures


def fingerprinting() -> dict[str, float]:
    """GB/s of fingerprinting tensors that together are a large LoRA, of copying them, and of fingerprinting them again."""
    tensors = [torch.randn(MIB // 2, generator=torch.Generator().manual_seed(seed)).half() for seed in range(LORA_MIB)]
    copies = [torch.empty_like(tensor) for tensor in tensors]
    size_gb = sum(tensor.nbytes for tensor in tensors) / 1e9

    def copy() -> None:
        for target, tensor in zip(copies, tensors, strict=True):
            target.copy_(tensor)

    prints = Fingerprints()
    return {
        "copy (GB/s)": size_gb / min(_timed_s(copy) for _ in range(5)),
        "fingerprint (GB/s)": size_gb / min(_timed_s(lambda: Fingerprints().of(tensors)) for _ in range(5)),
        "first fingerprint (ms)": _timed_s(lambda: prints.of(tensors)) * 1e3,
        "the same again (ms)": _timed_s(lambda: prints.of(tensors)) * 1e3,
    }


def files(folder: pathlib.Path, shrink: int, rank: int) -> tuple[pathlib.Path, pathlib.Path]:
    """The checkpoint and the LoRA in *folder*, made if they are missing."""
    sizes = family("sd15", shrink)
    checkpoint, lora = folder / f"sd15-{shrink}.safetensors", folder / f"lora-{shrink}-{rank}.safetensors"
    if not checkpoint.exists():
        write_checkpoint(str(checkpoint), checkpoint_layout(sizes), 0, "fp16", metadata=sizes.metadata())
    if not lora.exists():
        save_file(lora_tensors(sizes, rank=rank), str(lora))
    return checkpoint, lora


class Upstream:
    """A ComfyUI checkout that measures the same. Raises ``SystemExit`` with its last words if it fails."""

    def __init__(self, checkout: pathlib.Path, python: str, checkpoint: pathlib.Path, lora: pathlib.Path) -> None:
        script = [python, str(PROJECT / "benchmarks" / "patching_upstream.py"), str(checkout), str(checkpoint), str(lora)]
        options = ["--counts", *map(str, KEYS), "--replacements", str(REPLACEMENTS)]
        self._checkout = checkout
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = subprocess.Popen(
            [*script, *options], cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, text=True
        )
        self.figures: dict[str, float] = {UPSTREAM + name: value for name, value in self._answer().items()}

    def place(self, strength: float) -> float:
        """Seconds until the weights of the LoRA are in place at *strength*."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{strength}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._words.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            with contextlib.suppress(ValueError):  # what else it says
                return json.loads(line)
        self._words.seek(0)
        raise SystemExit(f"the measurement in {self._checkout} failed:\n{self._words.read().decode(errors='replace')[-2000:]}")


class LoraChanges:
    """Puts weights of the file *checkpoint* with those of the file *lora* in place."""

    def __init__(self, checkpoint: pathlib.Path, lora: pathlib.Path) -> None:
        self._checkpoint, self._lora = checkpoint, lora
        self._cache = comfy.model_management.ram_cache()
        comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False)

    def place(self, strength: float) -> float:
        """Seconds until the weights are in place at *strength*; everything that nodes made is dropped afterwards."""
        started_s = time.perf_counter()
        with torch.inference_mode():
            model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(self._checkpoint), output_vae=False)
            model, clip = comfy.sd.load_lora_for_models(model, clip, load_lora_file(str(self._lora)), strength, strength)
            comfy.model_management.load_models_gpu([model, clip.patcher])
        seconds = time.perf_counter() - started_s
        del model, clip
        gc.collect()
        self._cache.safe_point()
        return seconds

    def figures(self, upstream: Upstream | None) -> dict[str, float]:
        """Seconds the first time, again, and at another strength, in turn with *upstream*; bytes read since the first time."""
        figures = {"LoRA, first (s)": self.place(0.8)}
        read_bytes = self._cache.stats().counters.read_bytes
        figures["LoRA, again (s)"] = min(self.place(0.8) for _ in range(3))
        figures[OTHER_STRENGTH] = self.place(STRENGTHS[0])
        if upstream is not None:
            figures[UPSTREAM + OTHER_STRENGTH] = upstream.place(STRENGTHS[0])
        for strength in STRENGTHS[1:]:
            figures[OTHER_STRENGTH] = min(figures[OTHER_STRENGTH], self.place(strength))
            if upstream is not None:
                figures[UPSTREAM + OTHER_STRENGTH] = min(figures[UPSTREAM + OTHER_STRENGTH], upstream.place(strength))
        return figures | {"read since the first (bytes)": self._cache.stats().counters.read_bytes - read_bytes}


def broken_bounds(figures: dict[str, float]) -> list[str]:
    """What does not hold, in words."""
    clones = [figures[f"clone, {count} patched weights (us)"] for count in KEYS]
    bounds = {
        f"a clone with {KEYS[-1]} patched weights takes at most {FLAT} times one with none": max(clones) <= FLAT * clones[0],
        f"{REPLACEMENTS} replacements take at most {REPLACEMENTS_US} us": figures[f"{REPLACEMENTS} attention replacements (us)"]
        <= REPLACEMENTS_US,
        f"fingerprints run at {COPY_SHARE} of a copy's rate": figures["fingerprint (GB/s)"] >= COPY_SHARE * figures["copy (GB/s)"],
        f"the same LoRA again takes at most {AGAIN_SHARE} of the first time": figures["LoRA, again (s)"]
        <= AGAIN_SHARE * figures["LoRA, first (s)"],
        "nothing is read after the first time": figures["read since the first (bytes)"] == 0,
    }
    if UPSTREAM + OTHER_STRENGTH in figures:
        bounds[f"another strength takes at most {UPSTREAM_SHARE} of ComfyUI's time"] = (
            figures[OTHER_STRENGTH] <= UPSTREAM_SHARE * figures[UPSTREAM + OTHER_STRENGTH]
        )
    return [bound for bound, holds in bounds.items() if not holds]


def main() -> None:
    """Measure, print, and with ``--check`` fail unless every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--upstream", type=pathlib.Path, metavar="CHECKOUT")
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    if given.upstream is not None and given.shrink != 1:
        parser.error("--upstream needs the full shape: ComfyUI knows a family by its sizes")
    args.cpu, args.ram_model_cache_mb = True, 8192
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        figures = {**cloning(), **fingerprinting()}
        made = [path.resolve() for path in files(folder, given.shrink, given.rank)]
        upstream = None if given.upstream is None else Upstream(given.upstream.resolve(), given.python, *made)
        figures |= LoraChanges(*made).figures(upstream)
        if upstream is not None:
            figures |= upstream.figures
            upstream.close()
    for name, value in figures.items():
        print(f"{name}: {value:.4g}")
    print(f"registry: {patched_models().describe()}")
    broken = broken_bounds(figures)
    for bound in broken:
        print(f"does not hold: {bound}")
    if given.check and broken:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
