"""What a file really is, by its first bytes, where it is not the weights that its name promises."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rtune.data.files import signatures

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
_DOWNLOAD = "Download the file itself, signed in if its host asks for it."
_AGAIN = "Fetch the file again."
_EXPORT = "Export it as safetensors where it was made."
_STARTS = (
  (b"GGUF", "a GGUF file, as llama.cpp writes it", _EXPORT),
  (b"\x93NUMPY", "a single array (.npy)", "Give all arrays of a model by name: np.savez."),
  (b"\x89PNG", "a picture (PNG)", _AGAIN),
  (b"\xff\xd8\xff", "a picture (JPEG)", _AGAIN),
  (b"%PDF", "a PDF", _AGAIN),
)
_XML = re.compile(rb"\s*<\?xml", re.IGNORECASE)
_JSON = re.compile(rb"\s*[{\[]\s*[\"{}\[\]\d]")
_PICKLED = re.compile(rb"\x80[\x02-\x05]")


def kind_of(start: bytes) -> Kind | None:
  """What first bytes show; None for what may be weights, a zip archive among it."""
  if start[4:9] == b"\0\0\0\0{":  # the length of a header, and the header: safetensors
    return None
  stray = signatures.stray_of(start)
  if stray:
    what, mend = stray
    return Kind(what, f"{mend}.")
  for begin, what, mend in _STARTS:
    if start.startswith(begin):
      return Kind(what, mend)
  text = start.removeprefix(b"\xef\xbb\xbf")
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
