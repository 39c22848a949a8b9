"""Freezing a server with CRIU and restoring it, also several times at once, each in namespaces and an output folder of its own."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

from live_server import ROOT, free_port

CRIU = os.environ.get("KEEPWARM_CRIU") or shutil.which("criu")
COMMON = ("--file-locks", "--manage-cgroups=ignore", "-v1")
GROUPS = pathlib.Path("/sys/fs/cgroup/memory")


def why_not():
    """Why this machine cannot take snapshots; empty if it can."""
    if CRIU is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root and CRIU (KEEPWARM_CRIU names the program)"
    checked = subprocess.run([CRIU, "check"], capture_output=True, text=True)
    return "" if checked.returncode == 0 else f"criu check: {checked.stderr.strip().splitlines()[-1]}"


class Snapshot:
    """The image of a server that was started with *flags*, taken when everything was loaded."""

    def __init__(self, folder, base, *flags, loaded):
        """*loaded*: tells from the answer of ``GET /keepwarm/preload`` whether the first phase has ended. The server ends."""
        self.base, self.port, self.folder = base, free_port(), folder
        self.images = folder / "images"
        self.images.mkdir(parents=True)
        for name in ("input", "output", "user", "temp"):
            (base / name).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "main.py", "--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(base), *flags]
        nothing = subprocess.DEVNULL
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        try:
            self._wait(loaded)
            dump = [CRIU, "dump", "-t", str(self.process.pid), "-D", str(self.images), "-o", "dump.log", *COMMON]
            subprocess.run(dump, check=True, capture_output=True)
        finally:
            self.process.kill()
            self.process.wait()

    def _wait(self, loaded):
        ends_s = time.monotonic() + 600
        while time.monotonic() < ends_s and self.process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/keepwarm/preload") as answer:
                if loaded(json.load(answer)):
                    return
            time.sleep(0.2)
        raise RuntimeError("the server to be frozen did not come up")

    def restore(self, name, *prompts, tell=True, cgroup=None):
        """Begin to restore it as *name* and have it run *prompts*; :meth:`Restored.answer` waits. *tell*: ``POST /keepwarm/restored``."""
        return Restored(self, name, prompts, tell, cgroup)


class Restored:
    """One restored server; it ends with the process that stands for it here."""

    def __init__(self, snapshot, name, prompts, tell, cgroup):
        place = snapshot.folder / name
        (place / "output").mkdir(parents=True)
        self._answer = place / "answer.json"
        restore = [CRIU, "restore", "-D", str(snapshot.images), "-W", str(place), "-o", str(place / "restore.log"), "-d", *COMMON]
        request = {
            "own_output": str(place / "output"),
            "output": str(snapshot.base / "output"),
            "cgroup": cgroup and str(cgroup),
            "restore": restore,
            "port": snapshot.port,
            "tell": tell,
            "prompts": prompts,
            "answer": str(self._answer),
        }
        (place / "request.json").write_text(json.dumps(request))
        alone = ["unshare", "--pid", "--net", "--mount", "--fork", "--mount-proc", "--kill-child"]
        script = [sys.executable, str(pathlib.Path(__file__).with_name("restored_server.py")), str(place / "request.json")]
        self._process = subprocess.Popen([*alone, *script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def answer(self, timeout_s=300):
        """What it served; raises ``AssertionError`` with its output if it failed."""
        try:
            said, _ = self._process.communicate(timeout=timeout_s)
        finally:
            self._process.kill()
        log = self._answer.with_name("restore.log")
        assert self._process.returncode == 0, said + (log.read_text() if log.exists() else "")
        return json.loads(self._answer.read_text())


@contextlib.contextmanager
def limited_group(name, limit_bytes):
    """A memory control group (v1) of *limit_bytes*, empty; skips nothing: the caller has asked whether there are such groups."""
    group = GROUPS / f"{name}-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        yield group
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)
