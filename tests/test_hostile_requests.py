"""Thousands of malformed requests: each refused clearly, nothing read or written outside, the server alive."""

import collections
import http.client
import os
import time

from hostile_requests import SECRET, hostile_requests, send

OUTSIDE_OK = {"server.log"}


def files_of(folder):
    return {
        os.path.join(path, name): os.stat(os.path.join(path, name)).st_mtime_ns
        for path, _, names in os.walk(folder)
        for name in names
        if name not in OUTSIDE_OK and "__pycache__" not in path
    }


def test_every_hostile_request_is_refused_and_leaves_no_trace(start_server, tmp_path):
    (tmp_path / "secret.txt").write_text(SECRET)
    server = start_server(name="inside")
    (server.base / "secret.txt").write_text(SECRET)
    for folder in ("input", "output", "user/default"):
        (server.base / folder).mkdir(parents=True, exist_ok=True)
        (server.base / folder / "link").symlink_to(tmp_path)
    before = files_of(tmp_path)

    requests = list(hostile_requests())
    assert len(requests) >= 2000
    wrong = collections.defaultdict(list)
    for request in requests:
        shown = f"{request.why}: {request.method} {request.path[:120]} {request.body[-160:]!r}"
        try:
            status, body = send(server.port, request)
        except (http.client.HTTPException, ConnectionError, ValueError) as error:
            wrong[f"no answer: {type(error).__name__}"].append(shown)
            continue
        if not 400 <= status < 500 and (request.must_refuse or status >= 500):
            wrong[status].append(shown)
        if b"Traceback" in body or b'File "' in body:
            wrong["traceback"].append(shown)
        if SECRET.encode() in body or b"root:x:0" in body:
            wrong["secret"].append(shown)

    assert not wrong, "\n".join(f"{kind} × {len(cases)}: " + "\n    ".join(cases[:12]) for kind, cases in wrong.items())
    after = files_of(tmp_path)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    folders = tuple(str(server.base / folder) + os.sep for folder in ("user", "input"))
    assert not [path for path in changed if not path.startswith(folders)]
    assert server.process.poll() is None
    ends_s = time.monotonic() + 10
    while server.get("/prompt") != {"exec_info": {"queue_remaining": 0}}:
        assert time.monotonic() < ends_s, server.get("/queue")
        time.sleep(0.02)
