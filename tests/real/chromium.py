"""Chromium without a screen, told what to do over its own protocol (CDP), with an authenticator that is not there."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.conftest import ROOT
from tests.real.process import ServerProcess, find_binary

WAIT_S = 15.0
PICTURES = ROOT / "docs" / "login"
MESSAGE_BYTES_MAX = 64 * 1024 * 1024  # a picture


class Chromium:
    """One page of a browser. `evaluate` runs a script on it, `command` says anything else of the protocol."""

    def __init__(self, folder: Path) -> None:
        binary = find_binary("chromium")
        command = [
            *(binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"),
            *("--disable-dev-shm-usage", "--disable-background-networking", "--force-color-profile=srgb"),
            *("--hide-scrollbars", "--lang=en", f"--user-data-dir={folder / 'chromium'}", "about:blank"),
        ]
        self._server = ServerProcess(command, folder / "chromium.log")
        self._numbers = itertools.count(1)
        self._session = ""
        self.events: list[dict[str, Any]] = []
        self._around = contextlib.ExitStack()
        self._around.callback(self._server.stop)
        try:
            self._server.wait_for(lambda: self._address() is not None, "chromium")
            self._socket = self._around.enter_context(connect(str(self._address()), max_size=MESSAGE_BYTES_MAX))
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def _address(self) -> str | None:
        found = re.search(r"DevTools listening on (ws://\S+)", self._server.output)
        return None if found is None else found[1]

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Say something, and return what comes of it."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(WAIT_S))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def evaluate(self, script: str) -> Any:
        """Return what a script gives, also where it has to be waited for."""
        result = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, what: str) -> None:
        """Wait until a script says so."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(AssertionError):  # the page that was asked is gone: another comes
                if self.evaluate(condition):
                    return
            time.sleep(0.02)
        raise AssertionError(f"not within {WAIT_S} s: {what}; at {self.address}: {self.text[:400]}")

    def open(self, address: str) -> None:
        """Open an address, and wait until its page is there."""
        self.command("Page.navigate", url=address)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'", address)

    def at(self, path: str) -> None:
        """Wait until the page at a path is there."""
        self.wait(f"location.pathname === {path!r} && document.readyState === 'complete'", path)

    def fill(self, **fields: str) -> None:
        """Type into fields by their names."""
        for name, value in fields.items():
            self.evaluate(f"document.querySelector('[name={name}]').value = {json.dumps(value)}")

    def click(self, selector: str) -> None:
        """Click, as a person does: what needs one takes place."""
        script = f"document.querySelector({json.dumps(selector)}).click()"
        result = self.command("Runtime.evaluate", expression=script, userGesture=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]

    @property
    def address(self) -> str:
        return str(self.evaluate("location.href"))

    @property
    def text(self) -> str:
        return str(self.evaluate("document.body.innerText"))

    def add_authenticator(self, **options: Any) -> str:
        """Plug in an authenticator that knows its user and keeps its keys; return its id."""
        self.command("WebAuthn.enable")
        usual = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        added = self.command("WebAuthn.addVirtualAuthenticator", options={**usual, **options})
        return str(added["authenticatorId"])

    def picture(self, name: str) -> None:
        """Keep two pictures of the page for the docs, light and dark, where they are being made."""
        if os.environ.get("PORTCULLIS_PICTURES"):
            PICTURES.mkdir(exist_ok=True)
            self.screenshot(PICTURES / f"{name}-dark.png", dark=True)
            self.screenshot(PICTURES / f"{name}.png")

    def screenshot(self, path: Path, *, width: int = 420, height: int = 760, dark: bool = False) -> None:
        """Take a picture of the page, as wide as a phone by default."""
        scheme = "dark" if dark else "light"
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        picture = self.command("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))

    def complaints(self) -> list[str]:
        """Return what the browser found fault with: blocked scripts, styles, requests."""
        self.evaluate("0")
        entries = [each["params"]["entry"] for each in self.events if each.get("method") == "Log.entryAdded"]
        return [entry["text"] for entry in entries if entry["source"] == "security"]

    def close(self) -> None:
        """End the browser."""
        self._around.close()


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """Run Chromium for the time of a test; the test is skipped by name where there is none."""
    browser = Chromium(folder)
    try:
        yield browser
    finally:
        browser.close()
