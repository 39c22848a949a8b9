"""cubiq's ComfyUI_InstantID, unmodified, on SDXL's shape: what each part costs with and without re-use, and that nothing else changes.

Needs ``KEEPWARM_NODE_PACKS``, a folder with the pack, and on ``PYTHONPATH`` what it imports (insightface, onnxruntime, opencv). The
analysis of faces is a stand-in without weights; adapter, ControlNet and diffusion model are random, and narrow but for one test.
``-s`` shows the times.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics

import pack_faces
import pack_models
import psutil
import pytest
import torch
from live_server import LiveServer
from pack_cases.case_graphs import filled
from pack_cases.patching_packs import faced
from picture_prompts import node
from PIL import Image
from safetensors.torch import load_file

FOLDER = os.environ.get("KEEPWARM_NODE_PACKS")
PACK = "ComfyUI_InstantID"
RUNS, LONG_RUNS, GROWTH_MB = 10, 50, 64
pytestmark = pytest.mark.skipif(not FOLDER or not (pathlib.Path(FOLDER) / PACK).is_dir(), reason="KEEPWARM_NODE_PACKS names no InstantID")

TIMES = '''"""Counts and times the parts of InstantID and sampling, below whatever wraps them later."""

import functools
import json
import os
import time

import folder_paths
import nodes
import server

parts = {}


def timed(name, function):
    """*function*, counted."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        started_s = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            parts.setdefault(name, []).append(time.perf_counter() - started_s)
            with open(os.path.join(folder_paths.get_output_directory(), "parts.json"), "w", encoding="utf-8") as file:
                json.dump(parts, file)

    return call


def before_each_prompt(body, done=[]):
    if not done:
        done.append(True)
        names = nodes.NODE_CLASS_MAPPINGS["ApplyInstantID"].apply_instantid.__globals__
        names["extractFeatures"] = timed("analysis", names["extractFeatures"])
        names["InstantID"].get_image_embeds = timed("resampler", names["InstantID"].get_image_embeds)
        names["ApplyInstantID"].apply_instantid = timed("node", names["ApplyInstantID"].apply_instantid)
        nodes.KSampler.sample = timed("sampling", nodes.KSampler.sample)
    return body


server.PromptServer.instance.add_on_prompt_handler(before_each_prompt)
NODE_CLASS_MAPPINGS = {}
'''


@dataclasses.dataclass(slots=True)
class Runs:
    """What a server gave: latents by run, seconds of each call by part, resident MB after each run."""

    latents: list[torch.Tensor] = dataclasses.field(default_factory=list)
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    resident_mb: list[float] = dataclasses.field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Calls by part."""
        return {name: len(calls) for name, calls in self.seconds.items()}

    def told(self) -> str:
        """Calls by part, with the first one's milliseconds and the median of the later ones. The node's time holds analysis and resampler;
        its first call also moves and converts the adapter."""
        return "; ".join(f"{name} {len(calls)} calls, {_times(calls)}" for name, calls in self.seconds.items())


def _times(seconds: list[float]) -> str:
    first, later = 1e3 * seconds[0], [1e3 * each for each in seconds[1:]]
    return f"first {first:.1f} ms" + (f", then {statistics.median(later):.1f} ms" if later else "")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    pack_models.write_models(folder)
    return folder


@pytest.fixture(scope="module")
def start(request, tmp_path_factory):
    """Starts servers that remember, or do not, with the narrow models or those in another folder; all are stopped in the end."""
    started = []

    def run(remembers, models=None):
        base = tmp_path_factory.mktemp("on" if remembers else "off")
        pack_models.write_pack(base)
        (base / "models").symlink_to(models or request.getfixturevalue("models"))
        (base / "custom_nodes" / "a_part_times.py").write_text(TIMES, encoding="utf-8")
        (base / "custom_nodes" / PACK).symlink_to(pathlib.Path(FOLDER) / PACK)
        flags, environment = ((), {"KEEPWARM_REMEMBER_INSTANTID": "1"}) if remembers else (("--no-node-memo",), None)
        started.append(LiveServer(base, *flags, environment=environment, cold=True))
        Image.radial_gradient("L").resize((128, 128)).convert("RGB").save(base / "input" / "face.png")
        return started[-1]

    yield run
    for server in started:
        server.stop()


def prompt(number, picture="face.png"):
    """A new text (seeded conditioning stands for it) and a new seed with the same face."""
    made = faced("ApplyInstantID", weight=0.8)
    made["picture"] = node("LoadImage", image=picture)
    made["positive"]["inputs"]["seed"], made["sample"]["inputs"]["seed"] = 100 + number, 200 + number
    return made


def measure(server, runs, picture="face.png", **sampler):
    """Run *runs* prompts with the settings *sampler* of the sampler."""
    found, described = Runs(), server.get("/object_info")
    for number in range(runs):
        asked = prompt(number, picture)
        asked["sample"]["inputs"].update(sampler)
        done = server.run(filled(asked, described), 600)
        assert not done.of_type("execution_error"), done.of_type("execution_error")
        found.latents.append(load_file(server.base / "output" / "0")["kept"])
        found.resident_mb.append(psutil.Process(server.process.pid).memory_info().rss / 1e6)
    found.seconds = json.loads((server.base / "output" / "parts.json").read_bytes())
    return found


@pytest.mark.timeout(3600)
def test_analysis_and_resampler_run_once_in_ten_and_pictures_are_the_same_to_the_bit(start):
    on, off = start(True), start(False)
    remembered, plain = measure(on, RUNS), measure(off, RUNS)
    print(f"\nwithout: {plain.told()}\nremembered: {remembered.told()}")
    assert all(torch.equal(one, other) for one, other in zip(remembered.latents, plain.latents, strict=True))
    assert len({latent.numpy().tobytes() for latent in plain.latents}) == RUNS
    assert (plain.counts["analysis"], plain.counts["resampler"], plain.counts["node"]) == (2 * RUNS, RUNS, RUNS)
    assert (remembered.counts["analysis"], remembered.counts["resampler"], remembered.counts["node"]) == (2, 1, RUNS)

    with Image.open(on.base / "input" / "face.png") as face:
        face.putpixel((64, 64), (255, 0, 0))
        for server in (on, off):
            face.save(server.base / "input" / "other.png")
    changed, plainly = measure(on, 1, "other.png"), measure(off, 1, "other.png")
    assert (changed.counts["analysis"], changed.counts["resampler"]) == (4, 2)
    assert torch.equal(changed.latents[0], plainly.latents[0]) and not torch.equal(changed.latents[0], remembered.latents[0])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_is_flat_over_fifty_runs(start):
    found = measure(start(True), LONG_RUNS)
    print(f"\nresident MB after 10, 20, …: {[round(mb) for mb in found.resident_mb[9::10]]}")
    assert found.counts["analysis"] == 2
    assert found.resident_mb[-1] - found.resident_mb[RUNS - 1] < GROWTH_MB


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_same_holds_at_the_full_size_of_sdxl(start, tmp_path):
    """Takes 9 GB of disk and as much memory, one server after the other."""
    pack_faces.write_full_size(tmp_path)
    runs = {}
    for remembers in (True, False):
        server = start(remembers, tmp_path)
        with contextlib.ExitStack() as end:
            end.callback(server.stop)
            runs[remembers] = measure(server, RUNS, steps=1, cfg=1.0)
        print(f"\n{'remembered' if remembers else 'without'}: {runs[remembers].told()}")
    remembered, plain = runs[True], runs[False]
    assert all(torch.equal(one, other) for one, other in zip(remembered.latents, plain.latents, strict=True))
    assert (remembered.counts["analysis"], remembered.counts["resampler"]) == (2, 1)
    assert (plain.counts["analysis"], plain.counts["resampler"]) == (2 * RUNS, RUNS)
