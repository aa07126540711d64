"""ComfyUI's HTTP and websocket API: post a workflow, follow it, fetch what came out."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import MedTuneError, Missing


class WorkflowError(MedTuneError, RuntimeError):
    """A workflow that the server refused, or that failed or was interrupted while it ran."""


class Client:
    """One ComfyUI server, such as ``http://127.0.0.1:8188``."""

    def __init__(self, address: str, timeout: float = 30):
        self.address, self.timeout, self.id = address.rstrip("/"), timeout, uuid.uuid4().hex

    def get(self, path: str) -> Any:
        """The JSON at a path of the server; Missing when the server does not answer."""
        return json.loads(self._request(path) or b"null")

    def post(self, path: str, value: Any) -> Any:
        """The JSON answer to a JSON request."""
        return json.loads(self._request(path, json.dumps(value).encode()) or b"null")

    def picture(self, place: dict[str, str]) -> bytes:
        """The file of an image that a node put out, by its ``filename``, ``subfolder`` and ``type``."""
        return self._request("/view?" + urllib.parse.urlencode({key: place[key] for key in ("filename", "subfolder", "type")}))

    def _request(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"} if body else {})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise WorkflowError(f"{self.address}{path} answers {error.code}: {_reason(error.read())}") from error
        except OSError as error:
            raise Missing(f"no ComfyUI answers at {self.address} ({error}); start one, or give its address") from error

    def submit(self, workflow: dict[str, Any]) -> str:
        """Queue a workflow in API format; its prompt id. Raises WorkflowError, naming each node, when any part is refused."""
        answer = self.post("/prompt", {"prompt": workflow, "client_id": self.id})
        if answer.get("node_errors"):  # a 200 can carry them: the outputs that are valid would run
            self.post("/queue", {"delete": [answer["prompt_id"]]})
            raise WorkflowError(f"the workflow is refused: {_reason(json.dumps(answer).encode())}")
        return answer["prompt_id"]

    def interrupt(self) -> None:
        """Stop what the server runs now."""
        self._request("/interrupt", b"{}")

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What a finished workflow put out, or None as long as the server does not know."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def run(self, workflow: dict[str, Any], on_event: Callable[[str, dict[str, Any]], None] | None = None,
            timeout: float = 3600) -> dict[str, Any]:
        """Queue a workflow, follow it on the websocket, and return its history entry.

        ``on_event(type, data)`` gets every message of this workflow, with `progress_text` for the lines that nodes show. Raises
        WorkflowError when it fails, is interrupted or is not done after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        # connected before the post: no message is missed
        with contextlib.closing(_socket(self.address, self.id, self.timeout)) as socket:
            prompt_id = self.submit(workflow)
            for kind, data in _messages(socket, deadline):
                if data.get("prompt_id", prompt_id) != prompt_id:
                    continue
                if on_event is not None:
                    on_event(kind, data)
                if kind in ("execution_error", "execution_interrupted"):
                    raise WorkflowError(f"the workflow stopped in node {data.get('node_id')} ({data.get('node_type')}): "
                                        f"{str(data.get('exception_message') or 'interrupted').strip()}")
                if kind == "execution_success" or (kind == "executing" and data.get("node") is None):
                    break
        return self._finished(prompt_id, deadline)

    def _finished(self, prompt_id: str, deadline: float) -> dict[str, Any]:
        while time.monotonic() < deadline:  # the socket is early: the history may be empty for a moment
            if entry := self.history(prompt_id):
                return entry
            time.sleep(0.1)
        raise WorkflowError(f"workflow {prompt_id} has no history; is the server still running?")

    def wait(self, seconds: float = 120) -> None:
        """Return when the server answers; Missing when it does not in that time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.get("/system_stats")
                return
            except Missing:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)


def _socket(address: str, client_id: str, timeout: float) -> Any:
    import websocket

    place = f"{address.replace('http', 'ws', 1)}/ws?{urllib.parse.urlencode({'clientId': client_id})}"
    try:
        return websocket.create_connection(place, timeout)
    except (OSError, websocket.WebSocketException) as error:
        raise Missing(f"no ComfyUI answers at {address} ({error}); start one, or give its address") from error


def _messages(socket: Any, deadline: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """(type, data) of each message; the binary ones are pictures and lines of text."""
    import websocket

    while True:
        socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            message = socket.recv()
        except (TimeoutError, websocket.WebSocketTimeoutException) as error:
            raise WorkflowError("the workflow is not done in the time that it was given") from error
        except (OSError, websocket.WebSocketException) as error:
            raise Missing(f"the connection to ComfyUI broke off: {error}") from error
        if not message:
            raise Missing("the connection to ComfyUI broke off: the server closed it")
        if isinstance(message, bytes):
            yield _binary(message)
        else:
            event = json.loads(message)
            yield event["type"], event.get("data") or {}


def _binary(message: bytes) -> tuple[str, dict[str, Any]]:
    """Event 3 is a line of text, prefixed by its node's id and that id's length; 1 and 4 are preview pictures."""
    kind = int.from_bytes(message[:4], "big")
    if kind != 3:
        return "preview", {"bytes": len(message) - 4}
    length = int.from_bytes(message[4:8], "big")
    return "progress_text", {"node": message[8:8 + length].decode(), "text": message[8 + length:].decode(errors="replace")}


def _reason(body: bytes) -> str:
    """The server's account of what is wrong, with each node's complaints; the text as it is when it is not that."""
    try:
        answer = json.loads(body)
        error = answer.get("error") or {}
        parts = [error.get("message", "") if isinstance(error, dict) else str(error)]
        for node, found in (answer.get("node_errors") or {}).items():
            parts += [f"node {node} ({found.get('class_type')}): {one.get('message')}, {one.get('details')}"
                      for one in found.get("errors", [])]
        return "; ".join(part for part in parts if part) or json.dumps(answer)[:500]
    except (ValueError, AttributeError):
        return body[:500].decode(errors="replace")
