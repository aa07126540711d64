"""The client against a server of a few lines that speaks ComfyUI's API."""

import base64
import hashlib
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from medtune.errors import Missing
from medtune.workflows.client import Client, WorkflowError

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
GOOD = {"1": {"class_type": "A", "inputs": {}}}
REFUSED = {"error": {"message": "Prompt outputs failed validation"}, "node_errors": {
    "7": {"class_type": "KSampler", "errors": [{"message": "Value not in list", "details": "sampler_name: 'x'"}]}}}


def frame(code, payload, last=True):
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack(">H", len(payload))
    return bytes([(128 if last else 0) | code]) + length + payload


def event(kind, **data):
    return json.dumps({"type": kind, "data": data}).encode()


TEXT = struct.pack(">II", 3, 1) + b"1" + "step 1, loss 0.5 é".encode()
RUN = [frame(1, event("status", status={})), frame(1, event("progress", prompt_id="other", value=9)),
       frame(1, event("executing", prompt_id="p", node="1")[:10], last=False),
       frame(0, event("executing", prompt_id="p", node="1")[10:]),
       frame(9, b"ping"), frame(2, TEXT), frame(2, struct.pack(">I", 1) + b"\xff\xd8" * 200)]
END = {"good": [frame(1, event("execution_success", prompt_id="p"))],
       "bad": [frame(1, event("execution_error", prompt_id="p", node_id="1", node_type="A", exception_message="rank is 0"))],
       "cut": [frame(8, b"")], "silent": []}


class Server(BaseHTTPRequestHandler):
    asked, case, pongs = 0, "good", []

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.startswith("/ws?clientId="):
            return self.stream()
        if self.path == "/history/p":
            type(self).asked += 1
            return self.answer({"p": {"outputs": {"1": {"text": ["x"]}}}} if type(self).asked > 2 else {})
        return self.answer({})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/prompt" and "7" in body["prompt"]:
            return self.answer(REFUSED, 400)
        if self.path == "/prompt" and "8" in body["prompt"]:
            return self.answer({"prompt_id": "q", **REFUSED})
        return self.answer({"prompt_id": "p"})

    def answer(self, value, code=200):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def stream(self):
        accepted = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + MAGIC).encode()).digest()).decode()
        self.wfile.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          f"Sec-WebSocket-Accept: {accepted}\r\n\r\n").encode())
        for part in RUN + END[type(self).case]:
            self.wfile.write(part)
        head = self.rfile.read(2)  # the pong: masked, as a client's frames must be
        mask, payload = self.rfile.read(4), self.rfile.read(head[1] & 127) if head[1] & 127 else b""
        type(self).pongs = [head[0] & 15, bool(head[1] & 128), bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))]
        threading.Event().wait(0.5)


@pytest.fixture
def server():
    Server.asked, Server.case, Server.pongs = 0, "good", []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as made:
        made.daemon_threads = True
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


def test_it_follows_a_workflow_and_waits_for_its_history(server):
    events = []
    history = Client(server).run(GOOD, lambda kind, data: events.append((kind, data)), timeout=10)
    assert history["outputs"]["1"]["text"] == ["x"] and Server.asked == 3
    assert [kind for kind, _ in events] == ["status", "executing", "progress_text", "preview", "execution_success"]
    assert events[2][1] == {"node": "1", "text": "step 1, loss 0.5 é"}
    assert Server.pongs == [10, True, b"ping"]


def test_an_error_names_the_node_and_its_message(server):
    Server.case = "bad"
    with pytest.raises(WorkflowError, match=r"node 1 \(A\): rank is 0"):
        Client(server).run(GOOD, timeout=10)


@pytest.mark.parametrize("node", ["7", "8"])
def test_a_refused_workflow_names_the_node_whatever_the_status(server, node):
    with pytest.raises(WorkflowError, match=r"node 7 \(KSampler\): Value not in list, sampler_name: 'x'"):
        Client(server).submit({node: GOOD["1"]})


def test_a_connection_that_breaks_off_is_said(server):
    Server.case = "cut"
    with pytest.raises(Missing, match="broke off"):
        Client(server).run(GOOD, timeout=10)


def test_a_workflow_that_does_not_end_is_given_up(server):
    Server.case = "silent"
    with pytest.raises(WorkflowError, match="not done in the time"):
        Client(server).run(GOOD, timeout=0.3)


def test_no_server_is_said():
    with pytest.raises(Missing, match="no ComfyUI answers at http://127"):
        Client("http://127.0.0.1:9").run(GOOD)
