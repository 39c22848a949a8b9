"""Requests that cost a server much more than their sender: packed, deep, long, with many parts."""

import gzip
import json
import random
import zlib

from hostile_requests import Hostile

MIB = 1 << 20


def heavy_requests(dice: random.Random) -> list[Hostile]:
    """One of each kind, sizes varied; a server may take or refuse them, within the time and memory that it has for others too."""
    size = dice.randint(5, 40) * MIB
    many = dice.randint(1, 10) * 1_000_000
    packed = {"Content-Encoding": "gzip"}
    return [
        Hostile("POST", "/queue", gzip.compress(b" " * (size * 4), 1), packed, "gzip of blanks"),
        Hostile("POST", "/prompt", gzip.compress(b"[" + b"0," * many + b"0]", 1), packed, "gzip of numbers"),
        Hostile("POST", "/free", gzip.compress(b"{}" * 1000)[:-20], packed, "gzip cut short"),
        Hostile("POST", "/free", dice.randbytes(1000), packed, "gzip that is none"),
        Hostile("POST", "/free", zlib.compress(b" " * size, 1), {"Content-Encoding": "deflate"}, "deflate of blanks"),
        Hostile("POST", "/queue", b"[" * many, {}, "deep"),
        Hostile("POST", "/prompt", b'{"prompt":{' + b'"1":{},' * (many // 8) + b'"2":{}}}', {}, "many keys"),
        Hostile("POST", "/history", b'{"delete":[' + b'"x",' * (many // 4) + b'"x"]}', {}, "many ids"),
        Hostile("POST", "/prompt", json.dumps({"prompt": {"1": {"class_type": "x" * size}}}).encode(), {}, "long text"),
        Hostile("POST", "/api/jobs/cancel", b"1" * size, {}, "long number"),
        Hostile("POST", "/settings", json.dumps({"deep": _nested(dice.randint(50, 900))}).encode(), {}, "deep setting"),
        Hostile("POST", "/settings/x", b"[" + b"[]," * 18_000 + b"[]]", {}, "wide setting"),
        Hostile("POST", "/settings/big", json.dumps("x" * size).encode(), {}, "large setting"),
        Hostile("POST", "/settings/inf", b"1e999", {}, "endless number"),
        Hostile("POST", "/users", json.dumps({"username": "u" * size}).encode(), {}, "long name"),
        Hostile("POST", "/upload/image", _parts(20_000), {"Content-Type": "multipart/form-data; boundary=b"}, "many parts"),
        Hostile("POST", "/upload/image", b"a=b&" * (size // 4), {"Content-Type": "application/x-www-form-urlencoded"}, "long form"),
        Hostile(
            "POST", "/upload/image", _parts(1, name="d/" * 1900 + "a.png"), {"Content-Type": "multipart/form-data; boundary=b"}, "deep name"
        ),
        Hostile("POST", f"/userdata/{'d%2F' * 500}a.json", b"{}", {}, "deep user data"),
        Hostile("GET", "/view?filename=" + "%2e" * 2000, b"", {}, "long query"),
        Hostile("GET", "/view?filename=bomb.gif&type=input&preview=webp", b"", {}, "picture bomb"),
    ]


def _nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def _parts(count: int, name: str = "a.png") -> bytes:
    part = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\nx\r\n'.encode()
    return part * count + b"--b--\r\n"
