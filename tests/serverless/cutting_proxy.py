"""A proxy between worker and server that cuts every connection right before it would pass on a given text."""

import contextlib
import socket
import threading


class CuttingProxy:
    """Listens on ``port``. ``cut_before(text)`` arms it once; ``was_cut`` is set when it happened. ``close`` ends it."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._text: bytes | None = None
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.was_cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_before(self, text: bytes) -> None:
        """Cut when *text* arrives from the server."""
        with self._lock:
            self._text = text

    def close(self) -> None:
        """Stop listening and end all connections."""
        self._listener.close()
        self._cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            with self._lock:
                self._open += [client, server]
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_from_server: bool) -> None:
        try:
            while data := source.recv(65536):
                if is_from_server and self._is_due(data):
                    self._cut_all()
                    self.was_cut.set()
                    return
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            _end(end)

    def _is_due(self, data: bytes) -> bool:
        with self._lock:
            is_due = self._text is not None and self._text in data
            if is_due:
                self._text = None
            return is_due

    def _cut_all(self) -> None:
        with self._lock:
            connections, self._open = self._open, []
        for connection in connections:
            _end(connection)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
