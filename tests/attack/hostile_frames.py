"""WebSocket clients that mean no good: raw frames over a plain socket, as no library would send them."""

import base64
import contextlib
import os
import random
import socket
import struct

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(opcode: int, payload: bytes, *, final: bool = True, masked: bool = True, claimed: int | None = None) -> bytes:
    """One frame; *claimed* is the length its head tells, if that is not the truth."""
    size = len(payload) if claimed is None else claimed
    head = bytes([(0x80 if final else 0) | opcode])
    mask = 0x80 if masked else 0
    if size < 126:
        head += bytes([mask | size])
    elif size < 1 << 16:
        head += bytes([mask | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mask | 127]) + struct.pack(">Q", size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


def open_socket(port: int, query: str = "") -> socket.socket:
    """A connection whose upgrade has been accepted."""
    opened = socket.create_connection(("127.0.0.1", port), 30)
    key = base64.b64encode(os.urandom(16)).decode()
    opened.sendall(
        f"GET /ws{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    opened.recv(4096)
    return opened


def junk(dice: random.Random) -> bytes:
    """Some bytes for an open socket: floods of small frames, wrong lengths, wrong order, what is no frame at all."""
    return dice.choice(
        [
            lambda: frame(TEXT, b"junk") * 5000,
            lambda: frame(BINARY, b"") * 20_000,
            lambda: frame(PING, b"p" * 100) * 5000,
            lambda: frame(TEXT, b"[" * 100_000),
            lambda: frame(TEXT, b'{"type":"feature_flags","data":' + b'{"a":' * 2000 + b"1" + b"}" * 2001),
            lambda: frame(TEXT, b"x", claimed=1 << 62),
            lambda: frame(TEXT, b"\xff\xfe"),
            lambda: frame(TEXT, b"x", final=False) + frame(TEXT, b"y"),
            lambda: frame(0, b"", final=False) * 10_000,
            lambda: frame(TEXT, b"x", masked=False),
            lambda: frame(CLOSE, b"\x00"),
            lambda: frame(dice.choice([3, 4, 7, 11, 15]), dice.randbytes(20)),
            lambda: dice.randbytes(dice.randint(1, 50_000)),
            lambda: frame(BINARY, b"x" * 300_000),
        ]
    )()


def attack(port: int, dice: random.Random) -> None:
    """Open one socket, send junk over it until the server has had enough, and leave without a word."""
    with contextlib.suppress(OSError), contextlib.closing(open_socket(port, f"?clientId={dice.randrange(50)}")) as opened:
        opened.settimeout(5)
        for _ in range(dice.randint(1, 5)):
            opened.sendall(junk(dice))
