"""A real Chromium, driven over its DevTools protocol with nothing but the standard library: addresses, keys, sizes, screenshots."""

import base64
import json
import os
import pathlib
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

# Chromium may take this long to start, or to answer.
TIMEOUT_S = 60


class Browser:
    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="ottla-chromium-")
        binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if binary is None:
            raise SystemExit("there is no chromium")
        self.process = subprocess.Popen(
            [binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
             "--force-device-scale-factor=1", "--remote-debugging-port=0", f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = pathlib.Path(self.profile) / "DevToolsActivePort"
        until(lambda: port_file.exists() and port_file.read_text().count("\n") >= 1, "chromium does not start")
        port = int(port_file.read_text().splitlines()[0])
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=TIMEOUT_S))
        page = next(page for page in pages if page["type"] == "page")
        self.socket = connect(port, page["webSocketDebuggerUrl"].split(f":{port}")[1])
        self.number = 0
        # What the page complained of: exceptions, errors in the console, refused scripts.
        self.complaints = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        self.process.terminate()
        self.process.wait(TIMEOUT_S)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **parameters):
        self.number += 1
        send(self.socket, json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(receive(self.socket))
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.event(message)

    def event(self, message):
        parameters = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif message["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif message["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.complaints.append(" ".join(str(one.get("description", one.get("value"))) for one in parameters["args"]))

    def look(self, width, height, scheme):
        """The size of the window, and what the system prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, condition, what):
        until(lambda: self.evaluate(f"Boolean({condition})"), what)

    def open(self, address):
        """Opens an address, and waits until the page has looked once."""
        self.go(address)
        self.wait("document.documentElement?.dataset.ready", f"{address} does not get ready")
        time.sleep(0.15)

    def go(self, address):
        """Opens an address, and waits for nothing."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)

    def key(self, text):
        """A key, as a person types it."""
        named = {"Escape": 27, "Enter": 13}
        code = named.get(text, 0)
        typed = {} if code else {"text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=text, windowsVirtualKeyCode=code, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=text, windowsVirtualKeyCode=code)

    def screenshot(self, path, whole=False):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))


def until(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(what)
        time.sleep(0.05)


# --- WebSocket (RFC 6455), the part that is needed: text both ways, frames of a client masked ---

def connect(port, path):
    client = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    client.sendall((f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    if b" 101 " not in answer.splitlines()[0]:
        raise SystemExit(f"no WebSocket: {answer!r}")
    return client


def send(client, text):
    data = text.encode()
    mask = os.urandom(4)
    if len(data) < 126:
        head = struct.pack(">BB", 0x81, 0x80 | len(data))
    elif len(data) < 65536:
        head = struct.pack(">BBH", 0x81, 0x80 | 126, len(data))
    else:
        head = struct.pack(">BBQ", 0x81, 0x80 | 127, len(data))
    client.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))


def receive(client):
    text = b""
    while True:
        first, second = exactly(client, 2)
        length = second & 0x7F
        if length == 126:
            length = struct.unpack(">H", exactly(client, 2))[0]
        elif length == 127:
            length = struct.unpack(">Q", exactly(client, 8))[0]
        data = exactly(client, length)
        if first & 0x0F == 8:
            raise SystemExit("chromium closed the connection")
        if first & 0x0F in (0, 1):
            text += data
            if first & 0x80:
                return text.decode()


def exactly(client, length):
    data = b""
    while len(data) < length:
        more = client.recv(length - len(data))
        if not more:
            raise SystemExit("chromium is gone")
        data += more
    return data
