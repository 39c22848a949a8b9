"""What somebody who can write to a folder of results may do to it."""

import hashlib
import json
import math
import os
import pathlib
import random

from custom_nodes.keepwarm.entry_format import MAGIC, Sealer

MIB = 1 << 20


def entry_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of entries, in order."""
    return sorted(path for path in (folder / "v1" / "entries").glob("??/*") if path.is_file())


def blob_of(folder: pathlib.Path, key: str) -> pathlib.Path:
    """Where the tensor lies that ``forge_blob`` names for *key*."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return folder / "v1" / "blobs" / digest[:2] / digest


def forge_blob(key: str, size: int) -> bytes:
    """An entry for *key* with a right seal (without a secret), whose picture is one tensor of *size* bytes kept apart."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return _picture(key, {"dtype": "F32", "shape": [1, size // 4, 1, 1], "blake3": digest})


def forge_inline(key: str, shape: list[int]) -> bytes:
    """An entry for *key* with a right seal, whose picture is a tensor of *shape* in the entry itself."""
    return _picture(key, {"dtype": "F32", "shape": shape, "at": 0}, bytes(4 * math.prod(shape)))


def _picture(key: str, described: dict[str, object], inline: bytes = b"") -> bytes:
    tree = ["l", [["l", [["l", [["x", 0]]]]], None]]
    header = json.dumps({"format": 1, "key": key, "class": "EmptyImage", "value": tree, "tensors": [described]}).encode()
    parts = [MAGIC + len(header).to_bytes(4, "big") + header, inline]
    return b"".join([*parts, Sealer()._seal(parts)])


def _any_file(folder: pathlib.Path, dice: random.Random, kind: str = "*") -> pathlib.Path:
    files = sorted(path for path in (folder / "v1").glob(f"{kind}/??/*") if path.is_file() and not path.is_symlink())
    return dice.choice(files)


def _flip(folder: pathlib.Path, dice: random.Random) -> None:
    path = _any_file(folder, dice)
    data = bytearray(path.read_bytes() or b"\0")
    for _ in range(dice.randint(1, 8)):
        # Mostly where the structure is.
        data[dice.randrange(min(len(data), dice.choice((16, 400, len(data)))))] ^= 1 << dice.randrange(8)
    data[0] ^= 0 if path.read_bytes() != bytes(data) else 1
    path.write_bytes(data)


def _cut(folder: pathlib.Path, dice: random.Random) -> None:
    path = _any_file(folder, dice)
    os.truncate(path, dice.randrange(max(1, path.stat().st_size)))


def _grow(folder: pathlib.Path, dice: random.Random) -> None:
    with _any_file(folder, dice).open("ab") as stream:
        stream.write(dice.randbytes(dice.randint(1, 2000)))


def _make_holes(folder: pathlib.Path, dice: random.Random) -> None:
    path = _any_file(folder, dice)
    os.truncate(path, path.stat().st_size + dice.choice((1, 63, 200, 5000)) * MIB)


def _lengthen_header(folder: pathlib.Path, dice: random.Random) -> None:
    path = _any_file(folder, dice, "entries")
    size = dice.choice((5, 60)) * MIB
    filler = dice.choice((b"[],", b"1,", b" ", b'{"a":', b"["))
    header = b'{"format":1,"key":"%b","value":[' % path.name.encode() + filler * (size // len(filler))
    parts = [MAGIC + len(header).to_bytes(4, "big") + header]
    path.write_bytes(b"".join([*parts, Sealer()._seal(parts)]))


def _describe_otherwise(folder: pathlib.Path, dice: random.Random) -> None:
    """A right seal over a wrong structure."""
    path = _any_file(folder, dice, "entries")
    described = dice.choice(
        [
            [{"dtype": "F64", "shape": [1 << 40], "blake3": "a" * 64}],
            [{"dtype": "F32", "shape": [1 << 20], "blake3": "a" * 64}] * 1000,
            [{"dtype": "F32", "shape": [100], "at": 0}] * 1000,
            [{"dtype": "F32", "shape": [-1], "at": 0}],
            [{"dtype": "x", "shape": [1], "at": 0}],
            [{"array": "|O8", "shape": [1], "at": 0}],
            [7],
            {},
            None,
        ]
    )
    tree = dice.choice([["x", 0], ["l", [["x", 0]]], ["d", [[["l", []], 1]]], ["i", "z"], ["q", 1], None, [[]] * 50, ["s", [["l", []]]]])
    header = json.dumps({"format": 1, "key": path.name, "class": "Node", "value": tree, "tensors": described}).encode()
    parts = [MAGIC + len(header).to_bytes(4, "big") + header]
    path.write_bytes(b"".join([*parts, Sealer()._seal(parts)]))


def _swap(folder: pathlib.Path, dice: random.Random) -> None:
    """An entry, or a tensor, under another one's name."""
    kind = dice.choice(("entries", "blobs"))
    first, second = _any_file(folder, dice, kind), _any_file(folder, dice, kind)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes() if second != first else content + b"x")
    second.write_bytes(content if second != first else content[:-1])


def _link(folder: pathlib.Path, dice: random.Random) -> None:
    path = _any_file(folder, dice)
    target = dice.choice([_any_file(folder, dice), pathlib.Path("/etc/passwd"), pathlib.Path("/dev/zero"), path])
    path.unlink()
    path.symlink_to(target)


def _put_something_else(folder: pathlib.Path, dice: random.Random) -> None:
    path = _any_file(folder, dice)
    path.unlink()
    dice.choice((os.mkdir, os.mkfifo))(path)


def _link_folder(folder: pathlib.Path, dice: random.Random) -> None:
    path = _any_file(folder, dice).parent
    moved = folder / f"moved-{dice.randrange(1 << 40):x}"
    path.rename(moved)
    path.symlink_to(moved)


def _write_garbage(folder: pathlib.Path, dice: random.Random) -> None:
    _any_file(folder, dice).write_bytes(dice.choice((b"", MAGIC, MAGIC + b"\xff" * 4)) + dice.randbytes(dice.randint(0, 100_000)))


MUTATIONS = {
    "bits flipped": _flip,
    "cut": _cut,
    "longer": _grow,
    "holes": _make_holes,
    "a long header": _lengthen_header,
    "another structure": _describe_otherwise,
    "swapped": _swap,
    "a link": _link,
    "no file": _put_something_else,
    "a folder behind a link": _link_folder,
    "garbage": _write_garbage,
}


def mutate(folder: pathlib.Path, dice: random.Random) -> str:
    """Do one of these; says which. A folder in which nothing is left to change stays as it is."""
    name = dice.choice(list(MUTATIONS))
    try:
        MUTATIONS[name](folder, dice)
    except IndexError:
        return "nothing left"
    return name
