"""Pages in a real browser, headless: what its console says, and what does not fit its window."""

import contextlib
import functools
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import threading
import urllib.parse

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs the browser chromium")
# A window has a least width; a frame has none.
_PROBE = """<!doctype html><body><script>
const given = new URLSearchParams(location.search), width = +given.get("width");
const frame = document.createElement("iframe");
frame.style.cssText = `border: 0; height: 900px; width: ${width}px`;
frame.onload = () => setTimeout(() => {
  const page = frame.contentDocument, found = [];
  const style = (x) => frame.contentWindow.getComputedStyle(x);
  const name = (x) => x.tagName + (x.className ? "." + x.className : "");
  const scrolls = (x) => {
    for (let y = x; y && y !== page.body; y = y.parentElement)
      if (style(y).overflowX !== "visible") return true;
    return false;
  };
  const own = page.scrollingElement;
  if (own.scrollWidth > own.clientWidth)
    found.push(`page ${own.scrollWidth} > ${own.clientWidth}`);
  for (const x of page.body.querySelectorAll(given.get("of"))) {
    const right = x.getBoundingClientRect().right;
    if (right > width + 1 && !scrolls(x)) found.push(`${name(x)} ends at ${right} > ${width}`);
    const cut = style(x).overflowX === "hidden" && x.scrollWidth > x.clientWidth + 1;
    if (cut && x.clientWidth) found.push(`${name(x)} ${x.scrollWidth} > ${x.clientWidth}`);
  }
  document.title = "measured";
  const said = document.createElement("pre");
  said.textContent = JSON.stringify(found);
  document.body.replaceChildren(said);
}, 300);
frame.src = given.get("page");
document.body.append(frame);
</script></body>"""


def browse(page: pathlib.Path | str, folder: pathlib.Path, size: str, *more: str) -> list[str]:
  """Opens a page, saves a screenshot, and gives what the browser's console says."""
  where = page.as_uri() if isinstance(page, pathlib.Path) else page
  done = _run(where, folder, size, f"--screenshot={folder / 'shot.png'}", *more)
  return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def too_wide(folder: pathlib.Path, page: str, width: int, of: str = "*") -> list[str]:
  """What of a page of this folder ends beyond a window of this width, or is cut.

  Args:
    of: a CSS selector of the elements that are looked at, but for the page itself.
  """
  probe = folder / "probe.html"
  probe.write_text(_PROBE)
  query = urllib.parse.urlencode({"page": page, "width": width, "of": of})
  with _serving(folder) as address:
    given = "--dump-dom", "--virtual-time-budget=20000"
    done = _run(f"{address}/probe.html?{query}", folder, "1400,1000", *given)
  assert "CONSOLE" not in done.stderr and "<title>measured</title>" in done.stdout, done.stderr
  (said,) = re.findall(r"<pre>(.*)</pre>", done.stdout)
  return json.loads(said.replace("&gt;", ">"))


def _run(where: str, folder: pathlib.Path, size: str, *more: str) -> subprocess.CompletedProcess:
  command = [
    *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--hide-scrollbars", f"--window-size={size}"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    *(f"--user-data-dir={folder / 'profile'}", *more, where),
  ]
  done = subprocess.run(command, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  return done


class _Quiet(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *args):
    del args


@contextlib.contextmanager
def _serving(folder: pathlib.Path):
  """Frames of files may not be looked into; those of one server may."""
  handler = functools.partial(_Quiet, directory=str(folder))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield f"http://127.0.0.1:{server.server_port}"
    finally:
      server.shutdown()
      thread.join()
