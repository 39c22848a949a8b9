"""Starting beside another server, on folders that are odd, and ending whatever hangs."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from deep_folders import make_deep
from live_server import ROOT, Client

from utils.folder_walk import remove_tree

HANGING_PACK = """
import ctypes, threading

class HangInC:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "run", True, "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def run(self):
        print("hanging now", flush=True)
        ctypes.CDLL(None).sleep(1000)
        return ()

NODE_CLASS_MAPPINGS = {"HangInC": HangInC}
threading.Thread(target=ctypes.CDLL(None).sleep, args=(1000,), name="pack-thread").start()
"""
# The promise is five seconds; a busy machine takes its time to notice that the process has ended.
END_LIMIT_S = 10


def test_the_process_ends_while_a_node_and_a_packs_thread_hang(start_server, tmp_path):
    pack = tmp_path / "server" / "custom_nodes" / "hanging"
    pack.mkdir(parents=True)
    (pack / "__init__.py").write_text(HANGING_PACK)
    server = start_server()
    server.post("/prompt", {"prompt": {"1": {"class_type": "HangInC", "inputs": {}}}})
    while "hanging now" not in server.log():
        time.sleep(0.02)
    started_s = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(60)
    assert time.monotonic() - started_s < END_LIMIT_S
    assert "Not everything ended within" in server.log() and "run (__init__.py" in server.log()


def test_an_idle_server_ends_at_once_and_clears_its_temp_folder(start_server):
    server = start_server()
    temp = server.base / "temp"
    (temp / "a").mkdir(parents=True)
    make_deep(temp, 1100)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert not temp.exists() and "Not everything ended" not in server.log()


def start_again(server, *flags):
    """A second process on the same folders; returns it once it has ended or says that it serves."""
    command = [sys.executable, str(ROOT / "main.py"), "--base-directory", str(server.base), "--cpu", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def test_a_second_start_leaves_the_temp_folder_of_the_first_alone(start_server):
    server = start_server()
    preview = server.base / "temp" / "preview.png"
    preview.write_bytes(b"mine")
    failing = start_again(server, "--port", str(server.port))
    said, _ = failing.communicate(timeout=100)
    assert failing.returncode == 1 and "is taken by another program" in said and preview.exists()

    beside = start_again(server, "--port", "0")
    lines = []
    for line in beside.stdout:
        lines.append(line)
        if "To see the GUI" in line:
            break
    beside.send_signal(signal.SIGTERM)
    lines.append(beside.communicate(timeout=100)[0])
    said = "".join(lines)
    assert f"process {server.process.pid}, port {server.port}" in said and "left as it is" in said
    assert preview.read_bytes() == b"mine"
    assert server.stop() == 0 and not preview.exists()


@pytest.fixture
def odd_server(start_server, tmp_path):
    """A server on folders with what other programs or an attacker left in them."""
    base = tmp_path / "server"
    folders = [base / name for name in ("input", "output", "temp", "models/loras", "models/embeddings", "user/default/workflows")]
    for folder in folders:
        folder.mkdir(parents=True)
        if folder.name in ("input", "loras", "workflows"):
            make_deep(folder, 1100)
        (folder / "itself.png").symlink_to("itself.png")
        (folder / "itself.latent").symlink_to("itself.latent")
        (folder / "up").symlink_to("..")
        for name in ("pipe.png", "pipe.latent", "pipe.safetensors"):
            os.mkfifo(folder / name)
        (folder / "zero.png").symlink_to("/dev/zero")
    (base / "input" / "kmsg.png").symlink_to("/proc/kmsg")
    (base / "input" / "real.png").write_bytes(b"\x89PNG")
    yield start_server()
    for folder in folders:
        remove_tree(str(folder / "d"))  # what clears up after tests would descend by recursion


def test_a_server_starts_and_answers_on_folders_that_are_odd(odd_server):
    described = odd_server.get("/object_info")
    offered = described["LoadImage"]["input"]["required"]["image"][0]
    assert "real.png" in offered and not {"pipe.png", "zero.png", "itself.png"} & set(offered)
    assert "LoadImageMask" in described and "LoadLatent" in described and "LoraLoader" in described
    for path in (
        "/models/loras",
        "/embeddings",
        "/experiment/models/loras",
        "/internal/files/input",
        "/userdata?dir=workflows&recurse=true",
        "/v2/userdata",
        "/system_stats",
    ):
        odd_server.get(path)
    for path in ("/view?filename=pipe.png&type=input", "/view?filename=zero.png&type=input&preview=webp", "/userdata/workflows%2Fpipe.png"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            odd_server.get_bytes(path)
        assert refused.value.code in (403, 404)
    client = Client(odd_server)
    client.socket.settimeout(60)
    for name in ("pipe.png", "zero.png", "kmsg.png", "itself.png", "up", "real.png"):
        prompt = {
            "1": {"class_type": "LoadImage", "inputs": {"image": name}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
        status, answer = odd_server.post("/prompt", {"prompt": prompt, "client_id": client.client_id})
        assert status in (200, 400), answer
        if status == 200:
            messages = (message for message in client.messages() if isinstance(message, dict))
            assert next(
                message["type"] for message in messages if message["type"].startswith(("execution_error", "execution_success"))
            ) == ("execution_error")
    client.close()
    # The error is told a moment before the prompt leaves the queue.
    ends_s = time.monotonic() + 10
    while odd_server.get("/prompt") != {"exec_info": {"queue_remaining": 0}}:
        assert time.monotonic() < ends_s, odd_server.get("/queue")
        time.sleep(0.02)
    assert odd_server.stop() == 0


def test_deep_uploads_and_names_are_refused_and_the_server_starts_again(start_server):
    server = start_server()
    deep = "/".join("d" for _ in range(1000))
    form = f'--b\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\n{deep}\r\n--b\r\n'
    form += 'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nx\r\n--b--\r\n'
    request = urllib.request.Request(server.url + "/upload/image", form.encode(), {"Content-Type": "multipart/form-data; boundary=b"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 400 and "folders deep" in json.dumps(refused.value.read().decode())
    status, answer = server.post("/api/userdata/" + deep.replace("/", "%2F"), {})
    assert status == 400, answer
    picture = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": deep + "/a"}}
    status, answer = server.post("/prompt", {"prompt": {"1": picture, "2": save}})
    assert status == 200, answer
    while not (history := server.get(f"/history/{answer['prompt_id']}")):
        time.sleep(0.05)
    assert "shorten it" in json.dumps(history)
    assert server.stop() == 0
    assert start_server().get("/models/loras") == []


def test_a_damaged_extra_model_paths_file_stops_the_start_and_is_named(tmp_path):
    damaged = tmp_path / "paths.yaml"
    damaged.write_bytes("a:\n  loras: x\n".encode("utf-16"))
    for named, told in ((damaged, "save it as UTF-8"), (tmp_path / "none.yaml", "No such file")):
        command = [sys.executable, "main.py", "--cpu", "--base-directory", str(tmp_path), "--extra-model-paths-config", str(named)]
        done = subprocess.run([*command, "--quick-test-for-ci"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 1
        assert str(named) in done.stderr and told in done.stderr and "Traceback" not in done.stderr
