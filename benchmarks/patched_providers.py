"""Cache providers on ComfyUI without and with the series provider-fixes, in one run: speed, lost stores, faults, bytes.

    python benchmarks/patched_providers.py --unpatched CHECKOUT --patched CHECKOUT --python PYTHON [--pythonpath DIR] [--check]

``--in-memory WORDS`` (repeatable) is one more: the unpatched checkout with the changes in memory, as ``patchset run`` with WORDS has
them, such as ``--in-memory="--series provider-fixes"`` or ``--in-memory="--request provider-stores --request provider-deadline"``.

Each checkout's executor runs in subprocesses of its own. The time that lookups add is measured as in ``benchmarks/providers.py``. Besides:
how many of 200 stores of 50 ms are made when the prompt ends at once, what a provider that raises, hangs, blocks its thread or answers
with garbage does to a prompt, how many bytes a result at the output costs, and how many event loops a provider sees in three prompts.
``--check`` exits with 1 when a changed checkout misses a bound.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import pathlib
import runpy
import shlex
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve()
PROJECT = HERE.parents[1]
BUDGET_S, TOLERANCE = 5.0, 1.1
STORES, STORE_S = 200, 0.05
# As it is, ComfyUI waits for a hanging provider at the start and again for each of three nodes: shorter there, to end at all.
HANG_S, PLAIN_HANG_S = 60.0, 5.0
PICTURES, SIDE = 20, 256


def node_classes(torch):
    """The nodes of the runs besides those of ``providers.py``."""

    class Picture:
        RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "go", "benchmark"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"value": ("INT", {})}}

        def go(self, value):
            return (torch.full((1, SIDE, SIDE, 3), float(value)),)

    class Brighten(Picture):
        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"image": ("IMAGE",)}}

        def go(self, image):
            return (image + 1,)

    class Show(Brighten):
        RETURN_TYPES, OUTPUT_NODE = (), True

        def go(self, image):
            return {"ui": {"value": [float(image.mean())]}}

    return {"BenchPicture": Picture, "BenchBrighten": Brighten, "BenchShow": Show}


def pictures(length, value):
    """*length* pictures in a row and an output that shows the last one's value, ``value + length - 1``."""
    prompt = {"0": {"class_type": "BenchPicture", "inputs": {"value": value}}}
    for index in range(1, length):
        prompt[str(index)] = {"class_type": "BenchBrighten", "inputs": {"image": [str(index - 1), 0]}}
    prompt["end"] = {"class_type": "BenchShow", "inputs": {"image": [str(length - 1), 0]}}
    return prompt


class Inside:
    """The runs in the checkout that the process stands in."""

    def __init__(self, providers):
        sys.path[0] = os.getcwd()
        import comfy.cli_args

        comfy.cli_args.args.cpu = True
        import torch

        import execution
        import nodes
        from comfy_execution import cache_provider

        nodes.NODE_CLASS_MAPPINGS.update({**providers.NODES, **node_classes(torch)})
        self.execution, self.module, self.providers = execution, cache_provider, providers

    def executor(self):
        sizes = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        return self.execution.PromptExecutor(self.providers.QuietServer(), cache_type=self.execution.CacheType.CLASSIC, cache_args=sizes)

    def use(self, **methods):
        """Register a provider that remembers, with *methods* instead of its own."""
        module = self.module

        class Memory(module.CacheProvider):
            def __init__(self):
                self.values, self.bytes_given, self.loops = {}, 0, set()

            async def on_lookup(self, context):
                self.loops.add(asyncio.get_running_loop())
                value = self.values.get(context.cache_key_hash)
                self.bytes_given += 0 if value is None else module._estimate_value_size(value)
                return value

            async def on_store(self, context, value):
                self.values[context.cache_key_hash] = value

        module._clear_cache_providers()
        provider = Memory()
        for name, method in methods.items():
            setattr(provider, name, method)
        module.register_cache_provider(provider)
        return provider

    def close(self):
        """What happens when the server ends."""
        for module, function in (("provider_prompts", "close_providers"), ("provider_stores", "finish_stores")):
            if importlib.util.find_spec(f"comfy_execution.{module}"):
                at_the_end = getattr(importlib.import_module(f"comfy_execution.{module}"), function, None)
                if at_the_end:
                    at_the_end()

    def run(self, executor, prompt):
        """(what the output shows, seconds)."""
        begin_s = time.perf_counter()
        executor.execute(prompt, "benchmark", {}, ["end"])
        took_s = time.perf_counter() - begin_s
        return executor.history_result["outputs"].get("end", {}).get("value"), took_s

    def stores(self):
        """How many stores of 200 are made."""
        stored = set()

        async def slow(context, value):
            await asyncio.sleep(STORE_S)
            stored.add(context.cache_key_hash)

        self.use(on_store=slow)
        prompt = self.providers.graph("wide", 0)
        self.run(self.executor(), prompt)
        self.close()
        # An output node is a result of this machine: it need not be stored.
        return {"wanted": len(prompt) - 1, "stored": min(len(stored), len(prompt) - 1)}

    def fetched(self):
        """Bytes that providers hand over for a row of pictures whose last is known, and what one picture has."""
        provider = self.use()
        self.run(self.executor(), pictures(PICTURES, 1))
        provider.bytes_given = 0
        shown, _ = self.run(self.executor(), pictures(PICTURES, 1))
        return {"right": shown == [float(PICTURES)], "bytes": provider.bytes_given, "one": SIDE * SIDE * 3 * 4}

    def loops(self):
        """Event loops that a provider sees in three prompts."""
        provider, executor = self.use(), self.executor()
        for value in range(3):
            self.run(executor, pictures(2, value))
        return {"loops": len(provider.loops)}

    def fault(self, name, hang_s):
        """Seconds a prompt takes with a provider that has the fault, and without; whether the result is right."""
        CacheValue = self.module.CacheValue

        async def raises(*arguments):
            raise OSError("down")

        async def hangs(*arguments):
            await asyncio.sleep(hang_s)

        async def blocks(*arguments):
            time.sleep(hang_s)

        async def garbage(context):
            return CacheValue([["no picture"]], {"output": {"value": ["wrong"]}, "meta": {}})

        self.module._clear_cache_providers()
        _, plain_s = self.run(self.executor(), pictures(2, 1))
        method = {"raises": raises, "hangs": hangs, "blocks": blocks, "garbage": garbage}[name]
        self.use(on_lookup=method, **({} if name == "garbage" else {"on_store": method}))
        shown, took_s = self.run(self.executor(), pictures(2, 1))
        return {"right": shown == [2.0], "delay_s": took_s - plain_s}


FAULTS = ("raises", "hangs", "blocks", "garbage")


def measure(checkout, python, options, hang_s=HANG_S):
    """All figures of one checkout; each kind of run in a process of its own."""
    sys.path.insert(0, str(HERE.parent))
    import providers

    def inside(*words):
        environment = {**os.environ, **({"PYTHONPATH": options.pythonpath} if options.pythonpath else {})}
        command = [python, str(HERE), "--inside", *words]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                return json.loads(line.removeprefix("RESULT "))
        raise RuntimeError(f"{checkout}: {words} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")

    figures = {name: inside(name) for name in ("stores", "fetched", "loops")}
    figures["faults"] = {name: inside("fault", name, str(hang_s)) for name in FAULTS}
    if not options.faults_only:
        repeats = providers.REPEATS if hang_s == HANG_S else providers.UPSTREAM_REPEATS
        figures["lookups"] = providers.run_upstream(checkout, python, options.pythonpath, repeats)
    return figures


def python_with(words, checkout, python, folder):
    """A program in *folder* that is *python* with the changes of *words* for *checkout* in memory, and runs the script it is given."""
    sys.path.insert(0, str(PROJECT))
    from patchset import commands, live
    from patchset.checkout import open_checkout
    from patchset.command_line import build_parser
    from patchset.requests import REQUESTS
    from patchset.series import SERIES

    given = build_parser().parse_args(["run", str(checkout), *words.split()])
    known = {**SERIES, **REQUESTS}
    opened = open_checkout(checkout)
    chosen = [known[name] for name in (*(given.series or ()), *(given.request or ()))] or list(SERIES.values())
    changes, told = commands.in_memory(opened, chosen, known)
    print(*told, sep="\n", end="\n" * bool(told))
    live.write_overlay(opened, changes, folder)
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([python, str(HERE), "--under", str(folder)])} "$@"\n')
    program.chmod(0o755)
    return str(program)


def run_under(overlay, script, *words):
    """Run *script* with what *overlay* has in place of the checkout's modules."""
    spec = importlib.util.spec_from_file_location("import_hook", PROJECT / "patchset" / "import_hook.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    hook.install(overlay)
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


def report(which, figures, hang_s=HANG_S):
    """Print one checkout's figures."""
    print(f"{which}:")
    for case, row in figures.get("lookups", {}).items():
        print(
            f"  {case:>18}: {row['added_s'] * 1e3:8.1f} ms added, {row['round_trips']:7.1f} round trips (one takes "
            f"{row['round_trip_s'] * 1e3:.1f} ms), asked {row['asked']} times for {row['keys']} keys"
        )
    stores, fetched = figures["stores"], figures["fetched"]
    print(f"  stores made: {stores['stored']} of {stores['wanted']}")
    print(f"  {PICTURES} pictures in a row, the last one known: {fetched['bytes']} bytes fetched, one has {fetched['one']}")
    print(f"  event loops in three prompts: {figures['loops']['loops']}")
    for name, row in figures["faults"].items():
        hang = f" for {hang_s:.0f} s" if name in ("hangs", "blocks") else ""
        print(f"  provider {name}{hang}: {'right' if row['right'] else 'WRONG'} result, {row['delay_s']:.2f} s later")


def verdicts(figures):
    """(text, is it met) for each bound."""
    sys.path.insert(0, str(HERE.parent))
    import providers

    yield f"all {figures['stores']['wanted']} stores made", figures["stores"]["stored"] == figures["stores"]["wanted"]
    fetched = figures["fetched"]
    yield "only the last picture fetched", fetched["right"] and fetched["bytes"] == fetched["one"]
    yield "one event loop", figures["loops"]["loops"] == 1
    for name, row in figures["faults"].items():
        yield f"provider {name}: right result within {BUDGET_S:.0f} s + 10 %", row["right"] and row["delay_s"] <= BUDGET_S * TOLERANCE
    for case, row in figures.get("lookups", {}).items():
        bound = providers.MAX_ROUND_TRIPS[case]
        yield f"{case}: {row['round_trips']:.1f} round trips <= {bound}", row["round_trips"] <= bound
        yield f"{case}: no key asked for twice", row["asked"] == row["keys"]


def inside_the_checkout(run, *words):
    """One kind of run in the checkout that the process stands in; prints its figures and ends the process."""
    import providers

    inside = Inside(providers)
    result = inside.fault(words[0], float(words[1])) if run == "fault" else getattr(inside, run)()
    print("RESULT " + json.dumps(result), flush=True)
    # A provider may still block its thread.
    os._exit(0)


def main():
    """Measure, print, and with ``--check`` judge the changed checkouts; returns the exit status."""
    if sys.argv[1:2] == ["--inside"]:
        inside_the_checkout(*sys.argv[2:])
    if sys.argv[1:2] == ["--under"]:
        return run_under(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unpatched", type=pathlib.Path, help="a checkout as it is")
    parser.add_argument("--patched", type=pathlib.Path, help="a checkout that the series was applied to")
    parser.add_argument("--in-memory", action="append", default=[], metavar="WORDS", help="the unpatched one with changes in memory")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that can run them")
    parser.add_argument("--pythonpath", default=os.environ.get("PYTHONPATH"), help="PYTHONPATH for that interpreter")
    parser.add_argument("--faults-only", action="store_true", help="leave out the time that lookups add")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    options = parser.parse_args()
    if options.in_memory and not options.unpatched:
        parser.error("--in-memory needs --unpatched")
    if options.unpatched:
        report("unpatched", measure(options.unpatched, options.python, options, PLAIN_HANG_S), PLAIN_HANG_S)
    changed = {"patched": (options.patched, options.python)} if options.patched else {}
    all_met = True
    with tempfile.TemporaryDirectory() as folder:
        for index, words in enumerate(options.in_memory):
            overlay = pathlib.Path(folder) / str(index)
            overlay.mkdir()
            changed[f"in memory, {words}"] = options.unpatched, python_with(words, options.unpatched, options.python, overlay)
        for name, (checkout, python) in changed.items():
            figures = measure(checkout, python, options)
            report(name, figures)
            for text, is_met in verdicts(figures):
                print(("met:    " if is_met else "MISSED: ") + text, flush=True)
                all_met = all_met and is_met
    return int(options.check and not all_met)


if __name__ == "__main__":
    sys.exit(main())
