"""Servers that are forked off one process with the models in RAM, each spoken to over HTTP."""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

from live_server import free_port
from restored_server import ask, serve

UP_TIMEOUT_S = 400


class ForkedImage:
    """A context manager: *count* servers with *flags*, each in its memory control group of *groups*. :meth:`answers` has them serve."""

    def __init__(self, folder, base, *flags, count, groups=()):
        self.children = [
            {"port": free_port(), "output": str(folder / f"fork{number}"), "log": str(folder / f"fork{number}.log"), "group": group}
            for number, group in itertools.zip_longest(range(count), groups)
        ]
        for child in self.children:
            os.makedirs(child["output"])
        folder.joinpath("request.json").write_text(
            json.dumps({"flags": ["--listen", "127.0.0.1", "--base-directory", str(base), *flags], "children": self.children})
        )
        script = pathlib.Path(__file__).with_name("forked_servers.py")
        # A pool of OpenMP that has computed does not survive a fork.
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder / "request.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def __enter__(self):
        said = []
        for line in self.process.stdout:
            if line == "forked\n":
                return self
            said.append(line)
        raise AssertionError("nothing was forked:\n" + "".join(said))

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def answers(self, prompts, untold=()):
        """What each server made of its list in *prompts*, all at once; those whose numbers are *untold* hear of no restore."""
        with ThreadPoolExecutor(len(self.children)) as pool:
            return list(pool.map(lambda number: self._answer(number, prompts[number], number not in untold), range(len(self.children))))

    def _answer(self, number, prompts, tell):
        child = self.children[number]
        ends_s = time.monotonic() + UP_TIMEOUT_S
        while True:
            try:
                ask(child["port"], "/keepwarm/preload")
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < ends_s and self.process.poll() is None, pathlib.Path(child["log"]).read_text()
                time.sleep(0.2)
        told = ask(child["port"], "/keepwarm/restored", {}) if tell else None
        runs = [serve(child["port"], prompt) for prompt in prompts]
        stats = ask(child["port"], "/caches")["models"]["stats"]
        return {"restored": told, "runs": runs, "stats": stats, "preload": ask(child["port"], "/keepwarm/preload")}
