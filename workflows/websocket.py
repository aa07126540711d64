"""The receiving half of a websocket client (RFC 6455), in the standard library: enough to listen to ComfyUI's events."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import time
from urllib.parse import urlsplit

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class WebSocket:
    """An open websocket; a context manager. Raises OSError when it cannot be opened or breaks off."""

    def __init__(self, url: str, timeout: float = 30):
        parts = urlsplit(url)
        secure = parts.scheme in ("wss", "https")
        host, port = parts.hostname or "localhost", parts.port or (443 if secure else 80)
        self._socket = socket.create_connection((host, port), timeout)
        if secure:
            self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
        self._buffer = b""
        try:
            self._shake_hands(f"{host}:{port}", f"{parts.path or '/'}?{parts.query}")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._send(CLOSE, b"")
        self._socket.close()

    def receive(self, timeout: float) -> str | bytes:
        """The next message: text or bytes. Raises TimeoutError after so many seconds, ConnectionError when the other side closes."""
        deadline = time.monotonic() + timeout
        kind, parts = TEXT, []
        while True:
            last, code, payload = self._frame(deadline)
            if code == PING:
                self._send(PONG, payload)
            elif code == CLOSE:
                raise ConnectionError("the server closed the websocket")
            elif code in (TEXT, BINARY, CONTINUATION):
                kind = code or kind
                parts.append(payload)
                if last:
                    message = b"".join(parts)
                    return message.decode() if kind == TEXT else message

    def _shake_hands(self, host: str, target: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall((f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        expected = base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest())
        if b" 101 " not in head.split(b"\r\n")[0] or expected not in head:
            raise ConnectionError(f"no websocket is opened: {head.splitlines()[0].decode(errors='replace')}")

    def _frame(self, deadline: float) -> tuple[bool, int, bytes]:
        """(last of its message, code, payload)."""
        first, second = self._take(2, deadline)
        length = second & 127
        if length == 126:
            length, = struct.unpack(">H", self._take(2, deadline))
        elif length == 127:
            length, = struct.unpack(">Q", self._take(8, deadline))
        return bool(first & 128), first & 15, self._take(length, deadline)

    def _take(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self._fill()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _fill(self) -> None:
        received = self._socket.recv(1 << 16)
        if not received:
            raise ConnectionError("the server closed the connection")
        self._buffer += received

    def _send(self, code: int, payload: bytes) -> None:
        """One frame, masked as a client's must be; control frames alone, so at most 125 bytes."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload[:125]))
        self._socket.sendall(bytes([128 | code, 128 | len(masked)]) + mask + masked)
