"""A stand-in for the Hugging Face Hub: of its HTTP interface what huggingface_hub asks for here."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import re
import threading
from collections.abc import Iterator
from typing import Any

TOKEN = "hf_stand_in"


class Hub:
  """Repositories by name: their files, and the commits that have changed them.

  Attributes:
    url: of the server, for HF_ENDPOINT.
    repos: {user/name: {file: bytes}}, of the one revision that each has.
    asked: methods and paths of all requests.
  """

  def __init__(self):
    self.url = ""
    self.repos: dict[str, dict[str, bytes]] = {}
    self.blobs: dict[str, bytes] = {}  # that came by the way of large files
    self.asked: list[str] = []

  def commit(self, repo: str) -> str:
    """The hash of a repository's state."""
    digest = hashlib.sha1()
    for name, content in sorted(self.repos[repo].items()):
      digest.update(name.encode() + hashlib.sha1(content).digest())
    return digest.hexdigest()


def environment(hub: Hub, home: pathlib.Path) -> dict[str, str]:
  """For a process that talks to the stand-in and keeps what it fetches in `home`."""
  own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN}
  # Large files go the old way, since the new one is no plain HTTP.
  own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
  return {**os.environ, **own}


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
  """A hub while it runs, in a thread."""
  hub = Hub()
  handler = type("Handler", (_Handler,), {"hub": hub})
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield hub
    finally:
      server.shutdown()
      thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
  hub: Hub
  protocol_version = "HTTP/1.1"

  def log_message(self, *_: Any) -> None:
    """Says nothing."""

  def do_HEAD(self) -> None:
    self.do_GET()

  def do_GET(self) -> None:
    self.hub.asked.append(f"{self.command} {self.path}")
    path = self.path.partition("?")[0]
    info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
    file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    repo, revision = (info[1], info[3]) if info else (file[1], file[2]) if file else ("", "")
    if repo not in self.hub.repos:
      return self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
    commit, files = self.hub.commit(repo), self.hub.repos[repo]
    if revision not in (None, "main", commit):
      return self._say(404, {"error": "No revision"}, {"X-Error-Code": "RevisionNotFound"})
    if info and info[2] == "tree":
      rows = [self._row(name, content) for name, content in files.items()]
      return self._say(200, rows)
    if info:
      siblings = [{"rfilename": name} for name in files]
      about = {"id": repo, "sha": commit, "private": False, "tags": [], "siblings": siblings}
      return self._say(200, about)
    if file[3] not in files:
      return self._say(404, {"error": "No entry"}, {"X-Error-Code": "EntryNotFound"})
    content = files[file[3]]
    tag = f'"{hashlib.sha256(content).hexdigest()}"'
    return self._send(200, content, {"ETag": tag, "X-Repo-Commit": commit})

  @staticmethod
  def _row(name: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}

  def do_PUT(self) -> None:
    self.hub.asked.append(f"PUT {self.path}")
    content = self.rfile.read(int(self.headers["Content-Length"]))
    assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
    self.hub.blobs[hashlib.sha256(content).hexdigest()] = content
    self._say(200, {})

  def do_POST(self) -> None:
    self.hub.asked.append(f"POST {self.path}")
    body = self.rfile.read(int(self.headers["Content-Length"]))
    if self.headers.get("Authorization") != f"Bearer {TOKEN}":
      return self._say(401, {"error": "Invalid credentials"})
    if self.path == "/api/validate-yaml":
      return self._say(200, {"errors": [], "warnings": []})
    if self.path == "/api/repos/create":
      asked = json.loads(body)
      repo = f"{asked.get('organization') or 'user'}/{asked['name'].rpartition('/')[2]}"
      self.hub.repos.setdefault(repo, {})
      return self._say(200, {"url": f"{self.hub.url}/{repo}", "id": repo, "name": repo})
    if self.path.endswith("/info/lfs/objects/batch"):
      return self._say(200, self._places(json.loads(body)["objects"]))
    repo = re.match(r"/api/models/([^/]+/[^/]+)/", self.path)[1]
    if "/preupload/" in self.path:
      asked = json.loads(body)["files"]
      files = [{"path": one["path"], "shouldIgnore": False, "oid": None,
                "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
               for one in asked]  # fmt: skip
      return self._say(200, {"files": files})
    for line in body.splitlines():
      self._apply(repo, json.loads(line))
    commit = self.hub.commit(repo)
    url = f"{self.hub.url}/{repo}/commit/{commit}"
    return self._say(200, {"success": True, "commitOid": commit, "commitUrl": url})

  def _places(self, objects: list[dict[str, Any]]) -> dict[str, Any]:
    rows = []
    for one in objects:
      where = {"upload": {"href": f"{self.hub.url}/blobs/{one['oid']}"}}
      rows.append({"oid": one["oid"], "size": one["size"], "actions": where})
    return {"transfer": "basic", "objects": rows}

  def _apply(self, repo: str, change: dict[str, Any]) -> None:
    value = change["value"]
    if change["key"] == "file":
      assert value["encoding"] == "base64"
      self.hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
    elif change["key"] == "lfsFile":
      self.hub.repos[repo][value["path"]] = self.hub.blobs[value["oid"]]

  def _say(self, status: int, about: Any, headers: dict[str, str] | None = None) -> None:
    kind = {"Content-Type": "application/json"}
    self._send(status, json.dumps(about).encode(), kind | (headers or {}))

  def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
    self.send_response(status)
    for name, value in (headers | {"Content-Length": str(len(content))}).items():
      self.send_header(name, value)
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(content)
