"""Parts that measure steps: streamed against resident, against diffusers and ComfyUI, their memory, and whether they are right."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import torch

from benchmarks.gpu import reference
from benchmarks.gpu.bench import GB, Bench
from benchmarks.gpu.models import diffusers_step, load, load_on_card, step
from benchmarks.gpu.results import Figure
from benchmarks.gpu.transfer_parts import locked_rate

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARES = (0.25, 0.5, 0.75)
STREAMED_BOUND, STREAMED_GOAL = 1.25, 1.1
STEP_BOUND = 1.05
MEMORY_BOUND = 1.1
APART = 2e-3


def streaming(bench: Bench) -> dict[str, Figure]:
    """A step with a part of the weights on the host, against the longer of computing and copying."""
    patcher = load(bench)[0]
    load_on_card(bench, patcher)
    resident_s = bench.median(step(bench, patcher))
    rate, size = locked_rate(bench), patcher.model_size()
    figures = {"a step with all weights on the card": Figure(resident_s, "s")}
    for share in SHARES:
        bench.unload()
        patcher.patch_model(bench.device, lowvram_model_memory=int(share * size))
        bench.locked()
        streamed_bytes = size - patcher.loaded_size()
        streamed_s = bench.median(step(bench, patcher))
        patcher.detach()
        figures |= {
            f"{share:.0%} resident: a step": Figure(streamed_s, "s"),
            f"{share:.0%} resident: against a resident step": Figure(streamed_s / resident_s),
            f"{share:.0%} resident: against the longer of computing and copying": Figure(
                streamed_s / max(resident_s, streamed_bytes / rate), "", at_most=STREAMED_BOUND, goal=STREAMED_GOAL
            ),
        }
    return figures


def steps(bench: Bench) -> dict[str, Figure]:
    """A step against diffusers' own, and ComfyUI's where a checkout is named; and the memory that each takes at its peak."""
    patcher = load(bench)[0]
    load_on_card(bench, patcher)
    own_s, own_bytes = _time_and_peak(bench, step(bench, patcher))
    patcher.detach()
    bench.unload()
    network, call = diffusers_step(bench)
    theirs_s, theirs_bytes = _time_and_peak(bench, call)
    del network, call
    bench.unload()
    figures = {
        "a step": Figure(own_s, "s"),
        "a step of diffusers": Figure(theirs_s, "s"),
        "against diffusers": Figure(own_s / theirs_s, "", at_most=STEP_BOUND),
        "peak of a step": Figure(own_bytes / GB, "GB"),
        "peak against diffusers": Figure(own_bytes / theirs_bytes, "", at_most=MEMORY_BOUND),
    }
    if bench.upstream is not None:
        found = _upstream(bench)
        figures |= {
            "a step of ComfyUI": Figure(found["step_s"], "s"),
            "against ComfyUI": Figure(own_s / found["step_s"], "", at_most=STEP_BOUND),
            "peak against ComfyUI": Figure(own_bytes / found["peak_bytes"], "", at_most=MEMORY_BOUND),
        }
    return figures


def _time_and_peak(bench: Bench, call: Any) -> tuple[float, int]:
    call()
    bench.synchronize()
    torch.cuda.reset_peak_memory_stats(bench.device)
    seconds = bench.median(call)
    return seconds, torch.cuda.max_memory_allocated(bench.device)


def _upstream(bench: Bench) -> dict[str, float]:
    """A step of the ComfyUI checkout, in a process of its own."""
    assert bench.upstream is not None
    environment = {**os.environ, "PYTHONPATH": bench.upstream["pythonpath"]}
    probe = ROOT / "benchmarks" / "gpu" / "upstream_probe.py"
    command = [bench.upstream["python"], str(probe), bench.file(), str(bench.choice.side)]
    done = subprocess.run(
        command, cwd=bench.upstream["checkout"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise RuntimeError(f"ComfyUI's step failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def correctness(bench: Bench) -> dict[str, Figure]:
    """A small model in float32: texts, two steps and the picture, against the plain CPU; resident, streamed and with a LoRA."""
    from safetensors.torch import load_file

    out = bench.folder / "on-the-cpu.safetensors"
    checkpoint, lora = reference.small_files(bench.folder)
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "reference.py"), checkpoint, lora, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise RuntimeError(f"the CPU's run failed: {done.stderr.strip().splitlines()[-1:]}")
    expected = load_file(out)
    figures = {}
    with reference.exact(bench):
        for name, share in (("resident", None), ("streamed", 0.0)):
            found = reference.outputs(checkpoint, lora, share)
            for what, value in found.items():
                apart = (value.double() - expected[what].double()).abs().max() / expected[what].double().abs().max()
                figures[f"{what}, {name}: apart from the CPU's"] = Figure(apart.item(), "", at_most=APART, is_exact=True)
            bench.unload()
    return figures


def compiled(bench: Bench) -> dict[str, Figure]:
    """``TorchCompileModel``'s network against the plain one: how far apart, and how much faster."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    patcher = load(bench)[0]
    clone = patcher.clone()
    load_on_card(bench, patcher)
    plain = step(bench, patcher)
    expected, plain_s = plain().float().cpu(), bench.median(plain)
    set_torch_compile_wrapper(model=clone, backend="eager" if bench.pretends else "inductor")
    load_on_card(bench, clone)
    latent, sigmas, conditioning = _inputs(bench, clone)
    options = clone.model_options["transformer_options"]

    def call() -> torch.Tensor:
        return clone.model.apply_model(latent, sigmas, transformer_options=options, **conditioning)

    first_s = bench.seconds(call)
    found, compiled_s = call().float().cpu(), bench.median(call)
    return {
        "compiling": Figure(first_s, "s"),
        "a compiled step against a plain one": Figure(compiled_s / plain_s),
        "apart from the plain one": Figure(((found - expected).abs().max() / expected.abs().max()).item(), "", at_most=5e-2, is_exact=True),
    }


def _inputs(bench: Bench, patcher: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    from benchmarks.gpu.models import inputs

    return inputs(bench, patcher.model)
