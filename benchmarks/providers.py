"""What cache providers cost: round trips added to prompts, bytes fetched, and the speed of the pack's codec.

    python benchmarks/providers.py [--check] [--upstream CHECKOUT --python PYTHON [--pythonpath DIR]]

A provider that answers after 5 ms is registered with an executor whose nodes do nothing, on 200 nodes side by side and 200 in a row, all
missing and all found. Printed are the seconds added over the same prompt without providers, that time in round trips, and how often the
same key was asked for. With ``--upstream`` the same runs in a ComfyUI checkout, in a subprocess of the same invocation. The codec is
measured on a latent of 256 MB, as a share of the speed of copying the same bytes. ``--check`` exits with 1 when a bound is missed.
"""

import argparse
import asyncio
import json
import os
import pathlib
import subprocess
import sys
import time
import types

HERE = pathlib.Path(__file__).resolve()
DELAY_S, SIZE, REPEATS = 0.005, 200, 9
LATENT_BYTES = 256 << 20
MAX_ROUND_TRIPS = {"wide, all missing": 3, "wide, all found": 3, "deep, all missing": 10, "deep, all found": 2}
MIN_CODEC_SHARE = 0.35


class QuietServer:
    """Stands for the server."""

    def __init__(self):
        self.client_id = self.last_node_id = self.last_prompt_id = None
        self.sockets_metadata = {}

    def send_sync(self, event, data, sid=None):
        pass


class BenchPass:
    """Returns its input."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("*",), "go", "benchmark"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*", {}), "salt": ("INT", {})}}

    def go(self, value, salt):
        return (value,)


class BenchEnd(BenchPass):
    """The output node; takes any number of linked inputs."""

    OUTPUT_NODE = True

    def go(self, salt, **values):
        return (len(values),)


def graph(shape, salt):
    """*SIZE* nodes side by side (wide) or in a row (deep), into an output node."""
    first = {"class_type": "BenchPass", "inputs": {"value": "seed", "salt": salt}}
    prompt = {"0": first}
    for index in range(1, SIZE):
        value = index if shape == "wide" else [str(index - 1), 0]
        prompt[str(index)] = {"class_type": "BenchPass", "inputs": {"value": value, "salt": salt}}
    links = range(SIZE) if shape == "wide" else [SIZE - 1]
    prompt["end"] = {"class_type": "BenchEnd", "inputs": {**{f"v{index}": [str(index), 0] for index in links}, "salt": salt}}
    return prompt


def make_provider(module):
    """A provider that needs ``DELAY_S`` for each lookup, and counts."""

    class Slow(module.CacheProvider):
        def __init__(self):
            self.values, self.asked = {}, []
            self.finds = False

        async def on_lookup(self, context):
            self.asked.append(context.cache_key_hash)
            await asyncio.sleep(DELAY_S)
            return self.values.get(context.cache_key_hash) if self.finds else None

        async def on_store(self, context, value):
            self.values[context.cache_key_hash] = value

    return Slow()


def measure(execution, module, new_executor):
    """``{case: {"added_s", "round_trips", "asked", "keys"}}`` in the executor at hand."""

    def timed(shape, salt):
        executor = new_executor()
        begin_s = time.perf_counter()
        executor.execute(graph(shape, salt), "benchmark", {}, ["end"])
        took_s = time.perf_counter() - begin_s
        if not executor.success:
            raise RuntimeError(f"a run failed: {executor.status_messages[-1]}")
        if hasattr(executor, "close"):
            executor.close()
        return took_s

    timed("wide", -1)
    measured = {}
    for shape in ("wide", "deep"):
        module._clear_cache_providers()
        plain_s = min(timed(shape, 0) for _ in range(REPEATS))
        for finds, kind in ((False, "missing"), (True, "found")):
            best = None
            for _ in range(REPEATS):
                provider = make_provider(module)
                module._clear_cache_providers()
                module.register_cache_provider(provider)
                if finds:
                    timed(shape, 0)
                    provider.finds = True
                    provider.asked.clear()
                added_s = timed(shape, 0) - plain_s
                result = {"added_s": added_s, "round_trips": added_s / DELAY_S, "asked": len(provider.asked),
                          "keys": len(set(provider.asked))}
                best = result if best is None or added_s < best["added_s"] else best
            measured[f"{shape}, all {kind}"] = best
    module._clear_cache_providers()
    return measured


def run_here():
    """Measure this project's executor."""
    sys.path.insert(0, str(HERE.parent.parent))
    table = types.ModuleType("nodes")
    table.NODE_CLASS_MAPPINGS = {"BenchPass": BenchPass, "BenchEnd": BenchEnd}
    table.before_node_execution = lambda: None
    table.interrupt_processing = lambda value=True: None
    sys.modules["nodes"] = table
    import execution
    from comfy_execution import cache_provider
    from comfy_execution.hermetic_world import make_world

    world = make_world(lambda: "benchmark")
    return measure(execution, cache_provider, lambda: execution.PromptExecutor(QuietServer(), world=world))


def run_inside_upstream():
    """In the subprocess: measure the checkout in the working directory and print the result as JSON."""
    sys.path[0] = os.getcwd()
    import comfy.cli_args
    comfy.cli_args.args.cpu = True
    import execution
    import nodes
    from comfy_execution import cache_provider
    nodes.NODE_CLASS_MAPPINGS.update({"BenchPass": BenchPass, "BenchEnd": BenchEnd})
    sizes = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    print("RESULT " + json.dumps(measure(execution, cache_provider, lambda: execution.PromptExecutor(
        QuietServer(), cache_type=execution.CacheType.CLASSIC, cache_args=sizes))))


def run_upstream(checkout, python, pythonpath):
    """Measure an upstream checkout in a subprocess. Raises ``RuntimeError`` with its output when that fails."""
    environment = {**os.environ, **({"PYTHONPATH": pythonpath} if pythonpath else {})}
    command = [python, str(HERE), "--inside-upstream"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise RuntimeError(f"the upstream run ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def fastest(function):
    """The shortest of several runs, in seconds."""
    took_s = []
    for _ in range(5):
        begin_s = time.perf_counter()
        function()
        took_s.append(time.perf_counter() - begin_s)
    return min(took_s)


def measure_codec():
    """Seconds for copying, sealing (encode and digest) and reading back (verify and decode) a latent, and whether reading copies."""
    import torch

    from custom_nodes.keepwarm.entry_format import Sealer, read_value

    latent = {"samples": torch.rand(LATENT_BYTES // 4 // (16 * 128 * 128), 16, 128, 128)}
    target = torch.empty_like(latent["samples"])
    sealer, key = Sealer(), "0" * 64
    sealed = sealer.seal(key, "Bench", latent)
    entry = b"".join(sealed.entry)
    blobs = {blob.digest: bytearray(blob.data) for blob in sealed.blobs}
    back = read_value(sealer.open(key, entry), blobs)["samples"]
    next(iter(blobs.values()))[:4] = b"\x00\x00\x80\x3f"
    is_copied = float(back.reshape(-1)[0]) != 1.0
    blobs = {blob.digest: bytearray(blob.data) for blob in sealed.blobs}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    copy_s = fastest(lambda: target.copy_(latent["samples"]))
    torch.set_num_threads(threads)
    return {"copy_s": copy_s, "seal_s": fastest(lambda: sealer.seal(key, "Bench", latent)),
            "read_s": fastest(lambda: read_value(sealer.open(key, entry), blobs)), "is_copied": is_copied}


def main():
    """Measure, print, and with ``--check`` judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", metavar="CHECKOUT", help="a ComfyUI checkout to measure as well")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that can run the checkout")
    parser.add_argument("--pythonpath", default=os.environ.get("PYTHONPATH"), help="PYTHONPATH for that interpreter")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    parser.add_argument("--inside-upstream", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside_upstream:
        run_inside_upstream()
        return 0
    ours = run_here()
    theirs = run_upstream(options.upstream, options.python, options.pythonpath) if options.upstream else {}
    print(f"{'case':>18} {'who':>9} {'added ms':>9} {'round trips':>12} {'asked':>6} {'keys':>5}")
    verdicts = []
    for case, one in ours.items():
        for who, row in (("keepwarm", one), ("upstream", theirs.get(case))):
            if row:
                print(f"{case:>18} {who:>9} {row['added_s'] * 1e3:9.1f} {row['round_trips']:12.1f} {row['asked']:6d} {row['keys']:5d}")
        verdicts.append((f"{case}: {one['round_trips']:.1f} round trips <= {MAX_ROUND_TRIPS[case]}",
                         one["round_trips"] <= MAX_ROUND_TRIPS[case]))
        verdicts.append((f"{case}: no key asked for twice", one["asked"] == one["keys"]))
    codec = measure_codec()
    share = codec["copy_s"] / codec["seal_s"]
    print(f"codec, 256 MB: copy {codec['copy_s'] * 1e3:.0f} ms, encode and digest {codec['seal_s'] * 1e3:.0f} ms, "
          f"verify and decode {codec['read_s'] * 1e3:.0f} ms")
    verdicts.append((f"encode and digest at {share:.0%} of a copy's speed >= {MIN_CODEC_SHARE:.0%}", share >= MIN_CODEC_SHARE))
    verdicts.append(("decoding does not copy", not codec["is_copied"]))
    for text, is_met in verdicts:
        print(("met:    " if is_met else "MISSED: ") + text)
    return int(options.check and not all(is_met for _, is_met in verdicts))


if __name__ == "__main__":
    sys.exit(main())
