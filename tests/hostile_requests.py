"""Requests that no well-meaning client sends, in great number and the same for the same seed."""

import http.client
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

SECRET = "keepwarm-secret-that-must-not-leave"

ESCAPES = [
    "../secret.txt",
    "../../secret.txt",
    "..%2f..%2fsecret.txt",
    "%2e%2e/%2e%2e/secret.txt",
    "....//....//secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "..\\..\\secret.txt",
    "sub/../../secret.txt",
    "link/secret.txt",
    "C:\\secret.txt",
    "C:/secret.txt",
    "a\0b",
    "a\0/../secret.txt",
    "\\\\host\\share",
    "x" * 5000,
    "a/" * 2000 + "b",
    "\u202e../secret.txt",
    "../" * 40 + "etc/passwd",
    "./../secret.txt",
    "%c0%ae%c0%ae/secret.txt",
    "..;/secret.txt",
    "file:///etc/passwd",
    "~/../secret.txt",
    "..",
    "../",
    "/",
    "link/../../secret.txt",
]
JUNK = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**400,
    "",
    "x",
    "\0",
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    "\ud800",
    ["x", -1],
    ["x", "0"],
    [1, 0],
    {"x": None},
]


@dataclass(frozen=True)
class Hostile:
    """One request as it goes on the wire."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    why: str = ""
    must_refuse: bool = True  # False: a server may also take it as a name inside the folder


def send(port: int, request: Hostile) -> tuple[int, bytes]:
    """(status, body) of the answer to one request on a connection of its own to the loopback address."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(request.method, request.path, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(request.body)), **request.headers}.items():
            connection.putheader(name, value)
        connection.endheaders(request.body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# Names that only look as if they led out: after one round of decoding they are ordinary, if odd, names below the folder.
ODD_NAMES = frozenset(
    {
        "..%2f..%2fsecret.txt",
        "%2e%2e/%2e%2e/secret.txt",
        "....//....//secret.txt",
        "\u202e../secret.txt",
        "%c0%ae%c0%ae/secret.txt",
        "..;/secret.txt",
        "file:///etc/passwd",
        "~/../secret.txt",
        "/",
    }
)


def hostile_requests(seed: int = 7) -> Iterator[Hostile]:
    """At least 2,000 requests, each of which a server must refuse with a 4xx."""
    dice = random.Random(seed)
    yield from _paths()
    yield from _uploads()
    yield from _bodies(dice)
    yield from _prompts(dice)


def _paths() -> Iterator[Hostile]:
    for escape in ESCAPES:
        once, twice = quote(escape, safe=""), quote(quote(escape, safe=""), safe="")
        for name in (once, twice):
            for kind in ("input", "output", "temp"):
                yield Hostile("GET", f"/view?filename={name}&type={kind}", why="view")
                yield Hostile("GET", f"/view?filename=a.png&subfolder={name}&type={kind}", why="view subfolder")
            yield Hostile("GET", f"/view?filename={name}%20%5Boutput%5D", why="view annotated")
            yield Hostile("GET", f"/view?filename={name}&preview=webp", why="view preview")
            yield Hostile("GET", f"/view_metadata/checkpoints?filename={name}", why="metadata")
            yield Hostile("GET", f"/view_metadata/{name}?filename=a.safetensors", why="metadata folder")
            yield Hostile("GET", f"/experiment/models/preview/checkpoints/0/{name}", why="model preview")
            yield Hostile("GET", f"/experiment/models/preview/{name}/0/a.safetensors", why="model preview folder")
            yield Hostile("GET", f"/models/{name}", why="models")
            yield Hostile("GET", f"/internal/files/{name}", why="internal files")
            yield Hostile("GET", f"/extensions/{name}", why="extensions")
            yield Hostile("GET", f"/docs/{name}", why="docs")
            yield Hostile("GET", f"/templates/{name}", why="templates")
            yield Hostile("GET", f"/api/workflow_templates/{name}/{name}", why="workflow templates")
            yield Hostile("GET", f"/api/userdata/{name}", why="userdata read")
        if "secret" in escape or "etc" in escape or escape in ("..", "../", "/") or "\0" in escape:
            strict = escape not in ODD_NAMES
            yield Hostile("POST", f"/api/userdata/{once}", b"owned", why="userdata write", must_refuse=strict)
            yield Hostile("GET", f"/api/userdata?dir={once}", why="userdata list", must_refuse=strict)
            yield Hostile("POST", f"/api/userdata/a.txt/move/{once}", why="userdata move", must_refuse=strict)
            yield Hostile("GET", f"/api/v2/userdata?path={once}", why="userdata list v2", must_refuse=strict)
            yield Hostile("DELETE", f"/api/userdata/{once}", why="userdata delete", must_refuse=strict)


def _uploads() -> Iterator[Hostile]:
    for route, escape in itertools.product(("/upload/image", "/upload/mask"), ESCAPES):
        if "secret" not in escape and "etc" not in escape and "\0" not in escape:
            continue
        yield _multipart(route, {"subfolder": escape}, "a.png", "upload subfolder", escape not in ODD_NAMES)
        yield _multipart(route, {"type": escape}, "a.png", "upload type")
    yield Hostile("POST", "/upload/image", b"no multipart at all", {"Content-Type": "text/plain"}, "upload body")
    yield Hostile("POST", "/upload/image", b"--x\r\nbroken", {"Content-Type": "multipart/form-data; boundary=x"}, "upload cut off")
    yield Hostile("POST", "/upload/image", b"", {"Content-Type": "multipart/form-data"}, "upload without boundary")
    yield _multipart("/upload/mask", {"original_ref": "{not json"}, "a.png", "mask reference")
    escaping = json.dumps({"filename": "../../secret.txt", "type": "input"})
    yield _multipart("/upload/mask", {"original_ref": escaping}, "a.png", "mask escape")


def _multipart(route: str, fields: dict[str, str], name: str, why: str, strict: bool = True) -> Hostile:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()]
    head = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png'
    parts.append(f"{head}\r\n\r\nnot a png\r\n--b--\r\n")
    return Hostile("POST", route, "".join(parts).encode(), {"Content-Type": "multipart/form-data; boundary=b"}, why, strict)


def _bodies(dice: random.Random) -> Iterator[Hostile]:
    routes = ("/prompt", "/queue", "/history", "/free", "/settings", "/users", "/api/jobs/cancel")
    broken = [b"{", b"[", b"\xff\xfe", b'{"a":', b"nul", b"{'a': 1}", b"[" * 20_000, b'{"a":' * 20_000, b"\x00", b'"\\ud800"', b"1e999999x"]
    wrong = [b"3", b'"text"', b"[]", b"true", b"null", b"[1, 2]", b"-0.5"]
    for route, body in itertools.product(routes, broken + wrong):
        yield Hostile("POST", route, body, why=f"body {body[:8]!r}")
    for key, junk in itertools.product(("status", "sort_by", "sort_order", "limit"), ("x", "-1", "1e9", "%00", "..", "'", "[]")):
        yield Hostile("GET", f"/api/jobs?{key}={junk}", why="jobs query")
    for key in ("max_items", "offset"):
        for junk in ("x", "1.5", "%00", "[]", "9" * 5000):
            yield Hostile("GET", f"/history?{key}={junk}", why="history query")
    for _ in range(60):
        yield Hostile("POST", "/prompt", dice.randbytes(dice.randint(1, 400)), why="random bytes")


def _prompts(dice: random.Random) -> Iterator[Hostile]:
    def prompt(value: object, **more: object) -> Hostile:
        return Hostile("POST", "/prompt", json.dumps({"prompt": value, **more}).encode(), why=f"prompt {str(value)[:60]}")

    good = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
    yield from (prompt(junk) for junk in JUNK)
    yield from (prompt({"1": junk, "2": save}) for junk in JUNK)
    yield from (prompt({"1": {**good, "class_type": junk}, "2": save}) for junk in JUNK)
    yield from (prompt({"1": {**good, "inputs": junk}, "2": save}) for junk in JUNK if junk != {})
    yield from (prompt({"1": good, "2": {**save, "inputs": {"images": junk, "filename_prefix": "x"}}}) for junk in JUNK)
    yield from (prompt({"1": {**good, "inputs": {**good["inputs"], "width": junk}}, "2": save}) for junk in JUNK if junk not in (True, 1.5))
    yield from (prompt({"1": good, "2": save}, prompt_id=junk) for junk in JUNK if junk is not None)
    yield from (prompt({"1": good, "2": save}, partial_execution_targets=junk) for junk in JUNK if junk is not None)
    yield from (prompt({"1": good, "2": save}, number=junk) for junk in ("x", [], {}, "NaN", None) if junk is not None)
    yield from (prompt({"1": good, "2": save}, extra_data=junk) for junk in (1, "x", [], True))
    for size in (1, 2, 3, 50, 2000):
        ring = {str(i): {"class_type": "ImageInvert", "inputs": {"image": [str((i + 1) % size), 0]}} for i in range(size)}
        yield prompt({**ring, "s": {**save, "inputs": {"images": ["0", 0], "filename_prefix": "x"}}})
    for depth in (10, 200, 900):
        value: object = "x"
        for _ in range(depth):
            value = [value] if depth % 2 else {"a": value}
        yield prompt({"1": good, "2": {**save, "inputs": {"images": value, "filename_prefix": "x"}}})
    yield from (
        prompt({"1": good, "2": {**save, "inputs": {"images": ["1", index], "filename_prefix": "x"}}})
        for index in (-1, 1, 7, 10**30, 0.5, "0", None, True, [0])
    )
    for _ in range(460):
        yield prompt(_random_prompt(dice, good, save))


def _random_prompt(dice: random.Random, good: dict, save: dict) -> object:
    """A prompt with at least one certain fault: its only output node asks for a link that cannot be."""
    nodes = {
        str(i): dice.choice([good, dice.choice(JUNK), {"class_type": dice.choice(JUNK)}, {"inputs": dice.choice(JUNK)}])
        for i in range(dice.randint(1, 6))
    }
    nodes["out"] = {
        **save,
        "inputs": {
            "images": [dice.choice(["nowhere", "out", ""]), dice.choice([0, -1, 3])],
            dice.choice(["filename_prefix", "\0", "x" * 300]): dice.choice(JUNK),
        },
    }
    return nodes
