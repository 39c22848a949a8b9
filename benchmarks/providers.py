"""What cache providers cost: round trips added to prompts, bytes fetched, and the speed of the pack's codec.

    python benchmarks/providers.py [--check] [--upstream CHECKOUT --python PYTHON [--pythonpath DIR]]

A provider that answers after 5 ms is registered with an executor whose nodes do nothing, on 200 nodes side by side and 200 in a row, all
missing and all found. Printed are the time added over the same prompt without providers, what the same lookups take when the provider is
asked directly, the time added in round trips of 5 ms, the waves of questions that the provider counted, and how many were asked and
values given (each would be a download). With ``--upstream`` the same runs in a ComfyUI checkout, in a subprocess of the same invocation.
The codec is measured on a latent of 256 MB, as a share of the speed of copying the same bytes by one thread. ``--check`` exits with 1
when a bound is missed.
"""

import argparse
import asyncio
import gc
import json
import os
import pathlib
import subprocess
import sys
import time
import types

from idle_nodes import NODES

HERE = pathlib.Path(__file__).resolve()
DELAY_S, SIZE, REPEATS, UPSTREAM_REPEATS = 0.005, 200, 40, 4
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


def graph(shape, salt, size=SIZE):
    """*size* nodes side by side (wide) or in a row (deep), into an output node."""
    first = {"class_type": "BenchPass", "inputs": {"value": "seed", "salt": salt}}
    prompt = {"0": first}
    for index in range(1, size):
        value = index if shape == "wide" else [str(index - 1), 0]
        prompt[str(index)] = {"class_type": "BenchPass", "inputs": {"value": value, "salt": salt}}
    links = range(size) if shape == "wide" else [size - 1]
    prompt["end"] = {"class_type": "BenchEnd", "inputs": {**{f"v{index}": [str(index), 0] for index in links}, "salt": salt}}
    return prompt


def make_provider(module):
    """A provider that needs ``DELAY_S`` for each lookup, and counts: keys asked for, values given, and how often it was asked anew after
    it had answered everything (``waves``)."""

    class Slow(module.CacheProvider):
        def __init__(self):
            self.values = {}
            self.finds = False
            self.forget()

        def forget(self):
            self.asked, self.given, self.waves, self.open = [], 0, 0, 0

        async def on_lookup(self, context):
            self.asked.append(context.cache_key_hash)
            self.waves += not self.open
            self.open += 1
            await asyncio.sleep(DELAY_S)
            self.open -= 1
            value = self.values.get(context.cache_key_hash) if self.finds else None
            self.given += value is not None
            return value

        async def on_store(self, context, value):
            self.values[context.cache_key_hash] = value

    return Slow()


def timed(new_executor, shape, provider=None):
    """Seconds that a prompt takes in an executor that has run another one, so that all threads are there."""
    executor = new_executor()
    executor.execute(graph(shape, 1, 2), "warm", {}, ["end"])
    if provider is not None:
        provider.forget()
    # Collections look at the run's own objects only: one that looks at all that was imported takes longer than what is measured.
    gc.collect()
    gc.freeze()
    begin_s = time.perf_counter()
    executor.execute(graph(shape, 0), "benchmark", {}, ["end"])
    took_s = time.perf_counter() - begin_s
    if not executor.success:
        raise RuntimeError(f"a run failed: {executor.status_messages[-1]}")
    if hasattr(executor, "close"):
        executor.close()
    return took_s


def round_trip_s(module, count):
    """What *count* lookups side by side take when the provider is asked directly: the fastest of several.

    A little over ``DELAY_S`` for one; for hundreds the timers of the provider itself take a millisecond or two.
    """
    provider = make_provider(module)
    contexts = [module.CacheContext(str(number), "BenchPass", f"{number:064x}") for number in range(count)]

    async def ask():
        began_s = time.perf_counter()
        await asyncio.gather(*(provider.on_lookup(context) for context in contexts))
        return time.perf_counter() - began_s

    async def ask_often():
        return min([await ask() for _ in range(20)])

    return asyncio.run(ask_often())


def measure(module, new_executor, repeats=REPEATS):
    """``{case: {"added_s", "round_trip_s", "round_trips", "asked", "keys", "given", "waves"}}`` in the executor at hand.

    Runs with and without the provider alternate; compared are the fastest of both, as anything slower is the machine's other work.
    Round trips are nominal ones of ``DELAY_S``; beside them stands what one really takes: all of a wide graph's lookups at once, one of a
    deep one's.
    """
    timed(new_executor, "wide")
    measured = {}
    for shape, at_once in (("wide", SIZE), ("deep", 1)):
        direct_s = round_trip_s(module, at_once)
        for finds, kind in ((False, "missing"), (True, "found")):
            plain_s, with_s = [], []
            for _ in range(repeats):
                module._clear_cache_providers()
                plain_s.append(timed(new_executor, shape))
                provider = make_provider(module)
                module.register_cache_provider(provider)
                if finds:
                    timed(new_executor, shape)
                    provider.finds = True
                with_s.append(timed(new_executor, shape, provider))
            added_s = min(with_s) - min(plain_s)
            measured[f"{shape}, all {kind}"] = {
                "added_s": added_s,
                "round_trip_s": direct_s,
                "round_trips": added_s / DELAY_S,
                "asked": len(provider.asked),
                "keys": len(set(provider.asked)),
                "given": provider.given,
                "waves": provider.waves,
            }
    module._clear_cache_providers()
    return measured


def run_here():
    """Measure this project's executor."""
    sys.path.insert(0, str(HERE.parent.parent))
    table = types.ModuleType("nodes")
    table.NODE_CLASS_MAPPINGS = NODES
    table.before_node_execution = lambda: None
    table.interrupt_processing = lambda value=True: None
    sys.modules["nodes"] = table
    import execution
    from comfy_execution import cache_provider
    from comfy_execution.nodes_graph.registered_classes import class_source
    from comfy_execution.shared_keys.world import make_world

    class_source.provide(lambda: NODES)
    world = make_world(lambda: "benchmark")
    return measure(cache_provider, lambda: execution.PromptExecutor(QuietServer(), world=world))


def run_inside_upstream(repeats):
    """In the subprocess: measure the checkout in the working directory and print the result as JSON."""
    sys.path[0] = os.getcwd()
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import execution
    import nodes
    from comfy_execution import cache_provider

    nodes.NODE_CLASS_MAPPINGS.update(NODES)
    sizes = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    print(
        "RESULT "
        + json.dumps(
            measure(
                cache_provider,
                lambda: execution.PromptExecutor(QuietServer(), cache_type=execution.CacheType.CLASSIC, cache_args=sizes),
                repeats,
            )
        )
    )


def run_upstream(checkout, python, pythonpath, repeats=UPSTREAM_REPEATS):
    """Measure an upstream checkout, as it is or patched, in a subprocess. Raises ``RuntimeError`` with its output when that fails."""
    environment = {**os.environ, **({"PYTHONPATH": pythonpath} if pythonpath else {})}
    command = [python, str(HERE), "--inside-upstream", str(repeats)]
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
    return {
        "copy_s": copy_s,
        "seal_s": fastest(lambda: sealer.seal(key, "Bench", latent)),
        "read_s": fastest(lambda: read_value(sealer.open(key, entry), blobs)),
        "is_copied": is_copied,
    }


def main():
    """Measure, print, and with ``--check`` judge; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", metavar="CHECKOUT", help="a ComfyUI checkout to measure as well")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that can run the checkout")
    parser.add_argument("--pythonpath", default=os.environ.get("PYTHONPATH"), help="PYTHONPATH for that interpreter")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    parser.add_argument("--inside-upstream", type=int, metavar="REPEATS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside_upstream:
        run_inside_upstream(options.inside_upstream)
        return 0
    ours = run_here()
    theirs = run_upstream(options.upstream, options.python, options.pythonpath) if options.upstream else {}
    titles = ("added ms", "one trip ms", "round trips", "waves", "asked", "keys", "given")
    print(f"{'case':>18} {'who':>9}" + "".join(f" {title:>11}" for title in titles))
    verdicts = []
    for case, one in ours.items():
        for who, row in (("keepwarm", one), ("upstream", theirs.get(case))):
            if row:
                figures = [
                    f"{row['added_s'] * 1e3:.1f}",
                    f"{row['round_trip_s'] * 1e3:.1f}",
                    f"{row['round_trips']:.1f}",
                    *(str(row[name]) for name in titles[3:]),
                ]
                print(f"{case:>18} {who:>9}" + "".join(f" {figure:>11}" for figure in figures))
        bound = MAX_ROUND_TRIPS[case]
        verdicts.append((f"{case}: {one['round_trips']:.1f} round trips <= {bound}", one["round_trips"] <= bound))
        verdicts.append((f"{case}: {one['waves']} waves <= {bound}", one["waves"] <= bound))
        verdicts.append((f"{case}: no key asked for twice", one["asked"] == one["keys"]))
    verdicts.append(("deep, all found: only the value at the output is fetched", ours["deep, all found"]["given"] == 1))
    codec = measure_codec()
    share = codec["copy_s"] / codec["seal_s"]
    print(
        f"codec, 256 MB: copy {codec['copy_s'] * 1e3:.0f} ms, encode and digest {codec['seal_s'] * 1e3:.0f} ms, "
        f"verify and decode {codec['read_s'] * 1e3:.0f} ms"
    )
    verdicts.append((f"encode and digest at {share:.0%} of a copy's speed >= {MIN_CODEC_SHARE:.0%}", share >= MIN_CODEC_SHARE))
    verdicts.append(("decoding does not copy", not codec["is_copied"]))
    for text, is_met in verdicts:
        print(("met:    " if is_met else "MISSED: ") + text)
    return int(options.check and not all(is_met for _, is_met in verdicts))


if __name__ == "__main__":
    sys.exit(main())
