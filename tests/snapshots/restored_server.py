"""Runs inside namespaces of its own: restores one server from a CRIU image, has it serve prompts, and writes what came of it.

python tests/snapshots/restored_server.py REQUEST.json        (see :class:`snapshot_images.Restored`)
"""

import base64
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request

SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40


def raise_loopback():
    """A new network namespace has a loopback device that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP | IFF_RUNNING))


def ask(port, path, document=None):
    """The JSON answer of the server, or its bytes."""
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        body = answer.read()
    return json.loads(body) if answer.headers.get_content_type() == "application/json" else body


def serve(port, prompt):
    """The history's entry of *prompt* with the bytes of its picture."""
    prompt_id = ask(port, "/prompt", {"prompt": prompt})["prompt_id"]
    while not (history := ask(port, f"/history/{prompt_id}")):
        time.sleep(0.1)
    entry = history[prompt_id]
    files = [file for output in entry["outputs"].values() for file in output.get("images", ())]
    pictures = [base64.b64encode(ask(port, "/view?" + urllib.parse.urlencode(file))).decode() for file in files]
    return {"status": entry["status"]["status_str"], "models": entry.get("models", []), "pictures": pictures}


def main():
    """Do what the request says."""
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    raise_loopback()
    subprocess.run(["mount", "--bind", request["own_output"], request["output"]], check=True)
    # CRIU puts unlinked semaphores back by their names, which restores at the same time would share.
    subprocess.run(["mount", "-t", "tmpfs", "none", "/dev/shm"], check=True)
    if request["cgroup"]:
        with open(os.path.join(request["cgroup"], "cgroup.procs"), "w", encoding="ascii") as group:
            group.write("0")
    subprocess.run(request["restore"], check=True)
    port = request["port"]
    told = ask(port, "/keepwarm/restored", {}) if request["tell"] else None
    runs = [serve(port, prompt) for prompt in request["prompts"]]
    caches = ask(port, "/caches")["models"]
    with open(request["answer"], "w", encoding="utf-8") as file:
        json.dump({"restored": told, "runs": runs, "stats": caches["stats"], "preload": ask(port, "/keepwarm/preload")}, file)


if __name__ == "__main__":
    main()
