"""Server processes that start with the large libraries already imported.

Importing torch, diffusers and transformers costs each server six seconds of processor time, most of what a test of a real server costs.
A :class:`Nursery` is a process that imports them once; every server is then forked off it and runs ``main.py`` as the interpreter would:
own process, own arguments, environment, folder, log and modules of this project. Starts by command, without this, are tested in
``tests/test_run_once.py``, ``tests/serverless/`` and by servers that need a hash seed of their own (``tests/test_shared_results.py``).
"""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

LIBRARIES = (
    "torch",
    "numpy",
    "psutil",
    "scipy.stats",
    "aiohttp.web",
    "PIL.Image",
    "safetensors.torch",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "diffusers.models.controlnets.controlnet",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.loaders.single_file_utils",
)
READ_AT_START = ("LD_", "PYTHON", "OMP_", "MKL_", "MALLOC_")
"""Environment variables that begin so have their effect when a process starts or a library is imported: a server that needs other
values than this process has starts cold."""


def can_start_warm(environment: dict[str, str] | None) -> bool:
    """Whether this system can fork servers, and *environment* asks for nothing that only a fresh process would notice."""
    if not (hasattr(os, "fork") and hasattr(os, "pidfd_open")):
        return False
    return all(os.environ.get(name) == value for name, value in (environment or {}).items() if name.startswith(READ_AT_START))


class Nursery:
    """The process that servers are forked off; it imports *LIBRARIES* while its first caller waits."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request: Any) -> int:
        """Send one request, and return the number that answers it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process; servers that still run go on."""
        self._process.communicate()


class ForkedServer:
    """What tests use of :class:`subprocess.Popen`, for a process that the nursery forked."""

    def __init__(
        self, nursery: Nursery, script: pathlib.Path, arguments: Sequence[str], log: pathlib.Path, environment: dict[str, str]
    ) -> None:
        self._nursery = nursery
        self.returncode: int | None = None
        self.pid = nursery.ask(script=str(script), arguments=list(arguments), log=str(log), environment=environment)
        self._descriptor = os.pidfd_open(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status (negative: the signal); raises ``subprocess.TimeoutExpired``."""
        if self.returncode is None:
            if not select.select([self._descriptor], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired([f"server {self.pid}"], timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(self._nursery.ask(collect=self.pid))
            os.close(self._descriptor)
        return self.returncode

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send a signal unless the process has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def terminate(self) -> None:
        """Ask for the end with SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _become_server(request: dict[str, Any]) -> None:
    """Turn this freshly forked process into one that was started as ``python script arguments``, up to running the script."""
    with open(request["log"], "ab") as log, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    root = os.path.dirname(request["script"])
    os.chdir(root)
    sys.stdout.reconfigure(line_buffering=False)  # type: ignore[union-attr]
    sys.argv[:] = [request["script"], *request["arguments"]]
    sys.path[0] = root


def _serve_requests() -> dict[str, Any]:
    """Fork for every request; returns in the child, with the request. Ends the process when the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "collect" in request:
            answer = os.waitpid(request["collect"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                return request
        print(answer, flush=True)
    os._exit(0)


if __name__ == "__main__":
    import gc
    import importlib
    import runpy

    for library in LIBRARIES:
        importlib.import_module(library)
    gc.collect()
    gc.freeze()
    _request = _serve_requests()
    _become_server(_request)
    runpy.run_path(_request["script"], run_name="__main__")
