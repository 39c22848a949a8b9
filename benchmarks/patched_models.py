"""Two checkpoints used in turn, on ComfyUI without and with the series ``ram-model-cache`` (or a request), over HTTP.

    python benchmarks/patched_models.py --unpatched CHECKOUT --patched CHECKOUT --python PYTHON --checkpoints A.safetensors B.safetensors

Runs three servers one after the other, each alone: the checkout as it is, the patched one with ``--ram-model-cache-mb 0``, and with
``--cap-mb``. Each gets the prompts A, B, A, B, A (new seeds, default cache mode). Before each prompt the files are dropped from the page
cache, so what a prompt reads shows in the process's ``read_bytes``. Loads are counted by the line that ComfyUI logs for each diffusion
model it builds. Then the unpatched server and the one with size 0 run together and get ``--pairs`` prompts in turn with the model loaded,
which shows what the hooks cost while the cache is off. Fails unless the pictures of all servers are equal to the last bit, unless the
cache read each file once, and unless the server with size 0 read as often as the unpatched one. Needs 12 GB of free RAM.

``--patched`` may come again: a checkout with the request ``ram-models`` gets that one's flag. ``--in-memory WORDS`` (repeatable) starts one
more server, by ``patchset run`` on the unpatched checkout with WORDS, such as ``--in-memory="--request ram-models"``. ``--without-off``
leaves out the servers with size 0, ``--pairs 0`` the pairs, which are made with the first patched checkout.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from PIL import Image

PROJECT = pathlib.Path(__file__).resolve().parents[1]
IN_MEMORY = "in memory"
BUILT = "model weight dtype"
ORDER = (0, 1, 0, 1, 0)
# Long, for a machine that others keep busy.
START_S = 900
SERIES_FLAG, REQUEST_FLAG = "--ram-model-cache-mb", "--ram-models-mb"


@dataclasses.dataclass(frozen=True, slots=True)
class Shot:
    """One prompt's outcome: seconds, processor seconds of the server, models built, MB read, pixels, receipts if there are some."""

    checkpoint: str
    seconds: float
    cpu_s: float
    built: int
    read_mb: float
    pixels: bytes
    receipts: tuple[dict, ...]


def workflow(checkpoint: str, seed: int, size: int, steps: int) -> dict:
    """Text to image with *checkpoint*."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": f"a lighthouse at dusk, take {seed}"}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "fog"}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": size, "height": size, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": seed,
                "steps": steps,
                "cfg": 5.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "bench"}},
    }


class Server:
    """A ComfyUI process with the checkpoints in a models folder of its own."""

    def __init__(self, checkout: pathlib.Path, python: str, files: list[pathlib.Path], base: pathlib.Path, flags: list[str]) -> None:
        for name in ("custom_nodes", "models/checkpoints", "input", "output", "user"):
            (base / name).mkdir(parents=True)
        for file in files:
            (base / "models" / "checkpoints" / file.name).symlink_to(file.resolve())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        in_memory = IN_MEMORY in flags
        chosen, flags = (flags[: flags.index(IN_MEMORY)], flags[flags.index(IN_MEMORY) + 1 :]) if in_memory else ([], flags)
        run = [sys.executable, "-m", "patchset", "run", str(checkout), *chosen, "--python", python, "--"]
        start = run if in_memory else [python, "main.py"]
        command = [
            *start,
            "--cpu",
            "--port",
            str(self.port),
            "--base-directory",
            str(base),
            "--disable-api-nodes",
            "--disable-metadata",
            *flags,
        ]
        self.files, self.log_file = files, base / "log"
        self.log = self.log_file.open("wb")
        started_s = time.perf_counter()
        self.process = subprocess.Popen(command, cwd=PROJECT if in_memory else checkout, stdout=self.log, stderr=subprocess.STDOUT)
        while True:
            try:
                self.stats = self.get("/system_stats")
                break
            except OSError:
                if time.perf_counter() - started_s > START_S or self.process.poll() is not None:
                    raise SystemExit(f"the server did not start:\n{self.text()[-3000:]}") from None
                time.sleep(0.1)
        self.start_s = time.perf_counter() - started_s
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.pid = int(children[0]) if in_memory else self.process.pid

    def get(self, path: str) -> dict:
        """The JSON answer to a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.load(answer)

    def text(self) -> str:
        """The log so far."""
        return self.log_file.read_text(errors="replace")

    def process_figure(self, file: str, name: str) -> int:
        """A number out of ``/proc/PID/*file*``."""
        lines = pathlib.Path(f"/proc/{self.pid}/{file}").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name + ":")).split()[1])

    def cpu_s(self) -> float:
        """Processor time of the process so far, in seconds."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def shoot(self, checkpoint: str, seed: int, size: int, steps: int) -> Shot:
        """Run one prompt with the files out of the page cache."""
        for file in self.files:
            with open(file, "rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        built, read = self.text().count(BUILT), self.process_figure("io", "read_bytes")
        body = json.dumps({"prompt": workflow(checkpoint, seed, size, steps)}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/prompt", body, {"Content-Type": "application/json"})
        cpu_s, started_s = self.cpu_s(), time.perf_counter()
        with urllib.request.urlopen(request, timeout=60) as answer:
            prompt_id = json.load(answer)["prompt_id"]
        while not (history := self.get(f"/history/{prompt_id}")):
            time.sleep(0.02)
        seconds, cpu_s = time.perf_counter() - started_s, self.cpu_s() - cpu_s
        entry = history[prompt_id]
        if entry["status"]["status_str"] != "success":
            raise SystemExit(f"the prompt failed: {entry['status']['messages']}\n{self.text()[-3000:]}")
        name = entry["outputs"]["7"]["images"][0]["filename"]
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/view?filename={name}&type=output", timeout=60) as answer:
            pixels = Image.open(io.BytesIO(answer.read())).tobytes()
        read_mb = (self.process_figure("io", "read_bytes") - read) / 1e6
        return Shot(checkpoint, seconds, cpu_s, self.text().count(BUILT) - built, read_mb, pixels, tuple(entry.get("models", ())))

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def run(name: str, checkout: pathlib.Path, flags: list[str], given: argparse.Namespace) -> list[Shot]:
    """All prompts on one server; prints a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(checkout, given.python, given.checkpoints, pathlib.Path(folder) / "base", [*flags, *given.server_flags.split()])
        try:
            version = server.stats["system"]["comfyui_version"]
            print(f"{version} {name}: up after {server.start_s:.1f} s", flush=True)
            shots = []
            for index, which in enumerate(ORDER):
                checkpoint = given.checkpoints[which].name
                shot = server.shoot(checkpoint, 100 + index, given.size, given.steps)
                shots.append(shot)
                tiers = ", ".join(f"{one['model'].split()[0]}: {one.get('tier') or one['event']}" for one in shot.receipts)
                print(
                    f"  {checkpoint:16s} {shot.seconds:6.2f} s, {shot.cpu_s:6.2f} s of processor, {shot.built} built, "
                    f"{shot.read_mb:6.0f} MB read  {tiers}",
                    flush=True,
                )
            leak = "LEAK WARNINGS" if "potential memory leak" in server.text().lower() else "no leak warnings"
            now_gb, most_gb = (server.process_figure("status", name) / 1e6 for name in ("VmRSS", "VmHWM"))
            print(f"  RSS {now_gb:.1f} GB, at most {most_gb:.1f} GB; {leak}", flush=True)
            counters = server.get("/system_stats")["system"].get("ram_model_cache")
            print(f"  /system_stats: {json.dumps(counters)}", flush=True)
            return shots
        finally:
            server.stop()


def alternate(plain: pathlib.Path, patched: pathlib.Path, given: argparse.Namespace) -> bool:
    """Prompts in turn on an unpatched server and one with size 0, both with one model loaded; whether their pictures are equal."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        servers = []
        for name, checkout, flags in (("plain", plain, []), ("off", patched, [flag_of(patched), "0"])):
            servers.append(
                Server(checkout, given.python, given.checkpoints[:1], pathlib.Path(folder) / name, [*flags, *given.server_flags.split()])
            )
            ends.callback(servers[-1].stop)
            servers[-1].shoot(given.checkpoints[0].name, 1, given.size, given.steps)
        pairs: list[list[Shot]] = []
        for index in range(given.pairs):
            shots: dict[int, Shot] = {}
            for which in (0, 1) if index % 2 else (1, 0):
                shots[which] = servers[which].shoot(given.checkpoints[0].name, 1000 + index, given.size, given.steps)
            pairs.append([shots[0], shots[1]])
        print(f"model loaded, new seeds, {given.pairs} pairs in turn, unpatched and size 0:")
        for what in ("seconds", "cpu_s"):
            plain_s, off_s = (statistics.median(getattr(pair[which], what) for pair in pairs) for which in (0, 1))
            differences = [1000 * (getattr(pair[1], what) - getattr(pair[0], what)) for pair in pairs]
            error_ms = statistics.stdev(differences) / len(differences) ** 0.5
            print(
                f"  {what}: medians {plain_s:.3f} and {off_s:.3f}; difference {statistics.mean(differences):+.0f} ms, standard error"
                f" {error_ms:.0f} ms"
            )
        same = all(plain.pixels == off.pixels for plain, off in pairs)
        return same


def flag_of(checkout: pathlib.Path) -> str:
    """The flag that sets the cap in a patched checkout."""
    text = (checkout / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    return REQUEST_FLAG if REQUEST_FLAG in text else SERIES_FLAG


def changed_servers(given: argparse.Namespace) -> dict[str, tuple[pathlib.Path, list[str]]]:
    """Checkout and flags of each server with changes, by its name."""
    servers: dict[str, tuple[pathlib.Path, list[str]]] = {}
    for checkout in given.patched:
        flag, name = flag_of(checkout), f"patched ({checkout.name})" if len(given.patched) > 1 else "patched"
        for size in [0] * (not given.without_off) + [given.cap_mb]:
            servers[f"{name}, {f'{size} MB' if size else 'size 0'}"] = (checkout, [flag, str(size)])
    for words in given.in_memory:
        flag = REQUEST_FLAG if "ram-models" in words.split() else SERIES_FLAG
        servers[f"in memory ({words or 'all series'}), {given.cap_mb} MB"] = (
            given.unpatched,
            [*words.split(), IN_MEMORY, flag, str(given.cap_mb)],
        )
    return servers


def main() -> int:
    """Run the servers, print the comparison, and say whether all that is claimed holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpatched", type=pathlib.Path, required=True)
    parser.add_argument("--patched", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--checkpoints", type=pathlib.Path, nargs=2, required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--cap-mb", type=int, default=9500)
    parser.add_argument("--server-flags", default="", help="more flags for every server, e.g. '--fp8_e4m3fn-unet --bf16-vae'")
    parser.add_argument(
        "--in-memory",
        metavar="WORDS",
        action="append",
        default=[],
        help="one more server, by patchset run with WORDS on the unpatched checkout",
    )
    parser.add_argument("--without-off", action="store_true", help="leave out the server with size 0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--pairs-only", action="store_true", help="only the pairs of the unpatched server and the one with size 0")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    if given.pairs_only:
        return 0 if alternate(given.unpatched, given.patched[0], given) else 1
    servers = {"unpatched": (given.unpatched, []), **changed_servers(given)}
    shots = {name: run(name, checkout, flags, given) for name, (checkout, flags) in servers.items()}
    same = [len({shot.pixels for shot in row}) == 1 for row in zip(*shots.values())]
    built = {name: [shot.built for shot in some] for name, some in shots.items()}
    print(f"models built in A, B, A, B, A: {built}")
    for what, part in (("first visits", slice(0, 2)), ("later visits", slice(2, 5))):
        for figure in ("seconds", "cpu_s"):
            means = {name: round(statistics.mean(getattr(shot, figure) for shot in some[part]), 2) for name, some in shots.items()}
            print(f"{what}, mean {figure}: {means}")
    print(f"pictures equal to the last bit: {sum(same)} of {len(same)}", flush=True)
    if given.pairs:
        same.append(alternate(given.unpatched, given.patched[0], given))
    kept = {name: [1, 1, 0, 0, 0] if name.endswith(" MB") else [1] * 5 for name in servers}
    return 0 if all(same) and built == kept else 1


if __name__ == "__main__":
    sys.exit(main())
