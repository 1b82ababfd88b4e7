"""What a file really is, by its first bytes, where it is not the weights that its name promises."""

import re
from collections.abc import Sequence
from typing import NamedTuple

SIZE = 512  # bytes that tell


class Kind(NamedTuple):
  """What a file is, and what to do about it; `runs_code` where reading it could run code."""

  what: str
  mend: str
  runs_code: bool = False


_CONVERT = (
  "Convert it once with PyTorch: "
  "safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)."
)
PICKLE = Kind("a pickle, as PyTorch writes it, which can run code and is not read", _CONVERT, True)
_UNPACK = "Unpack it, and give the file of weights in it."
_DOWNLOAD = "Download the file itself; some hosts ask for an account first."
_AGAIN = "Fetch the file again."
_EXPORT = "Export it as safetensors where it was made."
_STARTS = (
  (
    b"version https://git-lfs.github.com/spec/",
    "a Git LFS pointer, not the file that it stands for",
    "Run `git lfs pull` in the clone that it is from.",
  ),
  (b"\x1f\x8b", "a gzip archive", _UNPACK),
  (b"BZh", "a bzip2 archive", _UNPACK),
  (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
  (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
  (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
  (b"Rar!", "a RAR archive", _UNPACK),
  (b"\x89HDF\r\n", "an HDF5 file, as Keras writes it", _EXPORT),
  (b"GGUF", "a GGUF file, as llama.cpp writes it", _EXPORT),
  (b"\x93NUMPY", "a single array (.npy)", "Give all arrays of a model by name: np.savez."),
  (b"\x89PNG", "a picture (PNG)", _AGAIN),
  (b"\xff\xd8\xff", "a picture (JPEG)", _AGAIN),
  (b"%PDF", "a PDF", _AGAIN),
)
_HTML = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml", re.IGNORECASE)
_JSON = re.compile(rb"\s*[{\[]\s*[\"{}\[\]\d]")
_PICKLED = re.compile(rb"\x80[\x02-\x05]")


def kind_of(start: bytes) -> Kind | None:
  """What first bytes show; None for what may be weights, a zip archive among it."""
  if start[4:9] == b"\0\0\0\0{":  # the length of a header, and the header: safetensors
    return None
  for begin, what, mend in _STARTS:
    if start.startswith(begin):
      return Kind(what, mend)
  text = start.removeprefix(b"\xef\xbb\xbf")
  if _HTML.match(text):
    return Kind("a web page (HTML), such as of a sign-in or an error", _DOWNLOAD)
  if _XML.match(text):
    return Kind("XML, as hosts answer where they refuse a file", _DOWNLOAD)
  if _JSON.match(text) and b"\0" not in text:
    return Kind("JSON text, not arrays", "Give the file of weights itself.")
  if _PICKLED.match(start):
    return PICKLE
  if start[257:262] == b"ustar":
    return Kind("a tar archive", _UNPACK)
  if len(start) >= 16 and not start.strip(b"\0"):
    return Kind("zeros from its start on, a download that was broken off", _AGAIN)
  return None


def kind_of_zip(names: Sequence[str]) -> Kind | None:
  """What the members of a zip archive show; None where there are arrays among them."""
  if any(name.endswith("data.pkl") for name in names):
    return PICKLE
  if any(name.endswith(".npy") for name in names):
    return None
  if not names:
    return Kind("an empty zip archive", _AGAIN)
  shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:3])
  return Kind(f"a zip archive without arrays ({shown[:100]})", _UNPACK)
