"""Pages in headless Chromium, through its DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect
from waiting import wait_until

# Otherwise Chromium connects to its maker's servers, and does not start as root.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]


@dataclass
class Visit:
    """Errors and requests of a page, and the result of a script."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    found: object = None


@contextlib.contextmanager
def chromium() -> Iterator[str]:
    """The address of a browser's DevTools; skips the test without Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen([program, *FLAGS, f"--user-data-dir={profile}"], stderr=subprocess.DEVNULL)
        try:
            port = Path(profile, "DevToolsActivePort")
            wait_until(lambda: port.is_file() and port.read_text().count("\n"), process)
            yield f"http://127.0.0.1:{port.read_text().split()[0]}"
        finally:
            process.kill()
            process.wait()


def visit(browser: str, page: Path, width: int, script: str = "null", picture: Path | None = None) -> Visit:
    """Open `page` in a window of `width` CSS pixels, evaluate `script`, and save a full-page `picture`."""
    return asyncio.run(_visit(browser, page, width, script, picture))


async def _visit(browser: str, page: Path, width: int, script: str, picture: Path | None) -> Visit:
    opened = await AsyncHTTPClient().fetch(HTTPRequest(f"{browser}/json/new", method="PUT", body=b""))
    socket = await websocket_connect(json.loads(opened.body)["webSocketDebuggerUrl"], max_message_size=100_000_000)
    seen, numbers = Visit(), itertools.count(1)

    def note(event: dict) -> None:
        method, values = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            seen.requests.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            seen.errors.append(values["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            seen.errors.append(values["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            seen.errors.append(json.dumps(values["args"]))

    async def receive(wanted) -> dict:
        while True:
            message = json.loads(await socket.read_message())
            note(message)
            if wanted(message):
                return message

    async def send(method: str, **values) -> dict:
        number = next(numbers)
        await socket.write_message(json.dumps({"id": number, "method": method, "params": values}))
        return (await receive(lambda message: message.get("id") == number))["result"]

    for domain in ("Page", "Network", "Runtime", "Log"):
        await send(f"{domain}.enable")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800}
    await send("Emulation.setDeviceMetricsOverride", **metrics)
    await send("Page.navigate", url=page.as_uri())
    await receive(lambda message: message.get("method") == "Page.loadEventFired")
    evaluated = await send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    seen.found = evaluated["result"].get("value")
    if picture:
        taken = await send("Page.captureScreenshot", captureBeyondViewport=True)
        picture.write_bytes(base64.b64decode(taken["data"]))
    await send("Page.close")
    return seen
