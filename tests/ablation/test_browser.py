"""The HTML report in a real browser, over the DevTools protocol through a pipe; skipped where no Chromium is installed."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")

OVERFLOW = """(() => {
  const wide = document.documentElement.clientWidth, out = [];
  for (const e of document.body.querySelectorAll('*'))
    if (!e.closest('.scroll, pre') && e.getBoundingClientRect().right > wide + 0.5) out.push(e.tagName + ' ' + e.textContent.slice(0, 40));
  return [document.documentElement.scrollWidth - wide, out.slice(0, 5)];
})()"""
IMAGES = """Promise.all([...document.querySelectorAll('image')].map(async e => {
  const image = new Image(); image.src = e.href.baseVal; await image.decode(); return image.naturalWidth; }))"""


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, profile):
        (commands, send), (receive, answers) = os.pipe(), os.pipe()
        theirs = [
            fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)
        ]  # clear of 3 and 4, which the browser reads and writes
        os.close(commands), os.close(answers)
        options = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ]
        options += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}", "about:blank"]
        start = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
        words = [sys.executable, "-c", start, *map(str, theirs), CHROMIUM, *options]
        self.process = subprocess.Popen(words, pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in theirs:
            os.close(end)
        self.send, self.receive = os.fdopen(send, "wb", buffering=0), os.fdopen(receive, "rb", buffering=0)
        self.rest, self.last, self.session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        self.send.close()  # which ends the browser
        self.process.wait(20)
        self.receive.close()

    def message(self):
        while b"\0" not in self.rest:
            part = self.receive.read(1 << 16)
            assert part, "the browser has ended"
            self.rest += part
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def call(self, method, **params):
        self.last += 1
        request = {"id": self.last, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        self.send.write(json.dumps(request).encode() + b"\0")
        while (answer := self.message()).get("id") != self.last:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def open(self, url, width, height, dark=False, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())

    def screenshot(self, path, whole=True):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@pytest.fixture(scope="module")
def browser():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "height", "dark"), [(1366, 900, False), (1366, 900, True), (390, 844, False), (320, 640, True)])
def test_the_page_fits_its_window_and_asks_for_nothing(browser, whole, tmp_path, width, height, dark):
    page = whole[0].folder / "report.html"
    browser.open(page.as_uri(), width, height, dark)
    assert browser.evaluate(OVERFLOW) == [0, []]
    widths = browser.evaluate(IMAGES)
    assert widths
    assert min(widths) > 0
    browser.screenshot(tmp_path / "page.png")
    asked = [event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    complaints = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [event for event in browser.events if event["method"] in complaints] == []
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.width == width
        shades = picture.convert("L").histogram()
    background = max(range(256), key=shades.__getitem__)
    assert background < 40 if dark else background > 240
