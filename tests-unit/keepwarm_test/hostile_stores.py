"""Servers that speak Redis' or S3's protocol and mean no good: they flood, stall, lie about sizes, send garbage or wrong types.

Each runs on a thread of its own on the loopback address. Handshakes are answered well; what is asked for after them as *mode* says.
``HostileServer.entry`` is what a lookup finds in modes that end with "blobs", so that its tensors are asked for.
"""

import contextlib
import random
import socket
import threading

BLOCK = bytes(256 << 10)


class HostileServer:
    """Listens on ``port`` until ``close``; *dice* makes its garbage."""

    def __init__(self, mode, entry=b"", dice=None):
        self.mode, self.entry, self.dice = mode, entry, dice or random.Random(7)
        self.sent_bytes = 0
        self._open = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """End all connections."""
        for one in [self._listening, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as asked:
            while self.answer(connection, asked):
                pass

    def answer(self, connection, asked):
        """Answer one request; whether more are wanted."""
        raise NotImplementedError

    def send(self, connection, data):
        """Send and count *data*."""
        connection.sendall(data)
        self.sent_bytes += len(data)

    def flood(self, connection, block=BLOCK):
        """Send *block* until the other side has had enough, or 20 GB are sent."""
        while self.sent_bytes < 20_000_000_000:
            self.send(connection, block)


class HostileRedis(HostileServer):
    """Misbehaves at GETRANGE."""

    MODES = (
        "flood",
        "flood a line",
        "flood an array",
        "flood at the right length",
        "longer",
        "deep",
        "stall",
        "slow",
        "garbage",
        "closes",
        "number",
        "nothing",
        "text",
        "error",
        "wrong type",
        "negative",
        "no length",
        "array of texts",
        "flood blobs",
        "stall blobs",
        "wrong type blobs",
    )

    def answer(self, connection, asked):
        head = asked.readline()
        words = []
        for _ in range(int(head[1:])):
            words.append(asked.read(int(asked.readline()[1:]) + 2)[:-2])
        name = words[0].upper()
        if name == b"HELLO":
            self.send(connection, b"%1\r\n$5\r\nproto\r\n:3\r\n")
        elif name == b"GETRANGE" and self.mode.endswith("blobs") and b":e:" in words[1]:
            self.send(connection, b"$%d\r\n%b\r\n" % (len(self.entry), self.entry))
        elif name == b"GETRANGE":
            return self._misbehave(connection, self.mode.removesuffix(" blobs"), int(words[3]) + 1 - int(words[2]))
        else:
            self.send(connection, b"+OK\r\n")
        return True

    def _misbehave(self, connection, mode, count):
        if mode == "flood":
            self.send(connection, b"$99999999999\r\n")
            self.flood(connection)
        elif mode == "flood a line":
            self.send(connection, b"+")
            self.flood(connection, b"a" * len(BLOCK))
        elif mode == "flood an array":
            self.send(connection, b"*2000000000\r\n")
            self.flood(connection, b":1\r\n" * 50_000)
        elif mode == "flood at the right length":
            self.send(connection, b"$%d\r\n" % count)
            self.flood(connection)
        elif mode == "deep":
            self.flood(connection, b"*1\r\n" * 50_000)
        elif mode == "garbage":
            self.send(connection, self.dice.randbytes(self.dice.randint(1, 100_000)))
        elif mode == "slow":
            self.send(connection, b"$%d\r\n" % count)
            while True:
                self.send(connection, b"a")
                if threading.Event().wait(0.2):
                    return False
        elif mode == "stall":
            threading.Event().wait(30)
        elif mode == "closes":
            self.send(connection, b"$%d\r\nab" % count)
        else:
            answers = {"number": b":5\r\n", "nothing": b"_\r\n", "text": b"+OK\r\n", "negative": b"$-7\r\n", "no length": b"$x\r\n"}
            answers |= {"error": b"-ERR no\r\n", "array of texts": b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"}
            answers["wrong type"] = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
            answers["longer"] = b"$%d\r\n%b\r\n" % (count + 5, bytes(count + 5))
            self.send(connection, answers[mode])
            return True
        return False


class HostileS3(HostileServer):
    """Misbehaves at GET."""

    MODES = (
        "flood",
        "flood in chunks",
        "flood at the right length",
        "flood headers",
        "stall",
        "slow",
        "garbage",
        "closes",
        "ends early",
        "error",
        "forbidden",
        "elsewhere",
        "no length",
        "negative",
        "not partial blobs",
        "flood blobs",
        "flood in chunks blobs",
        "stall blobs",
        "ends early blobs",
    )

    def answer(self, connection, asked):
        first, length, span = asked.readline().split(), 0, None
        while line := asked.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
            if line.startswith(b"range: bytes="):
                span = [int(part) for part in line.partition(b"=")[2].split(b"-")]
        if not first:
            return False
        asked.read(length)
        if first[0] != b"GET":
            self._head(connection, b"404 Not Found" if first[0] == b"HEAD" else b"200 OK", 0)
        elif self.mode.endswith("blobs") and b"/entries/" in first[1]:
            self._head(connection, b"200 OK", len(self.entry))
            self.send(connection, self.entry)
        else:
            self._misbehave(connection, self.mode.removesuffix(" blobs"), span)
            return False
        return True

    def _head(self, connection, status, length, more=b""):
        size = b"" if length is None else b"Content-Length: %d\r\n" % length
        dated = b'Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\nETag: "a"\r\n'
        self.send(connection, b"HTTP/1.1 %b\r\n%b%b%b\r\n" % (status, size, dated, more))

    def _misbehave(self, connection, mode, span):
        status, more, count = b"200 OK", b"", 1000
        if span is not None:
            count = span[1] + 1 - span[0]
            status, more = b"206 Partial Content", b"Content-Range: bytes %d-%d/%d\r\n" % (*span, span[1] + 1)
        if mode == "flood":
            self._head(connection, status, 1 << 40, more)
            self.flood(connection)
        elif mode == "flood in chunks":
            self._head(connection, status, None, more + b"Transfer-Encoding: chunked\r\n")
            self.flood(connection, b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
        elif mode == "flood at the right length":
            self._head(connection, status, count, more)
            self.flood(connection)
        elif mode == "flood headers":
            self.send(connection, b"HTTP/1.1 200 OK\r\n")
            self.flood(connection, b"X-Flood: " + b"a" * 10_000 + b"\r\n")
        elif mode == "stall":
            threading.Event().wait(30)
        elif mode == "slow":
            self._head(connection, status, 1000, more)
            while not threading.Event().wait(0.2):
                self.send(connection, b"a")
        elif mode == "garbage":
            self.send(connection, self.dice.randbytes(self.dice.randint(1, 100_000)))
        elif mode == "ends early":
            self._head(connection, status, count, more)
            self.send(connection, bytes(count // 2))
        elif mode == "not partial":
            self._head(connection, b"200 OK", 1 << 30)
            self.flood(connection)
        elif mode == "no length":
            self._head(connection, status, None, more)
            self.send(connection, bytes(1000))
        elif mode == "negative":
            self.send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")
        elif mode != "closes":
            said = {"error": b"500 Oh", "forbidden": b"403 No", "elsewhere": b"302 Found"}[mode]
            self._head(connection, said, 0, b"Location: http://127.0.0.1:1/\r\n" if mode == "elsewhere" else b"")
