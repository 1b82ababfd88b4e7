"""What a file really is, told by its first bytes, with the one line that makes it usable."""

HEAD = 1024  # bytes that `kind_of` wants to see

_FTYP = {  # brand of an ISO base media file -> its name
  **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "HEIC"),
  **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
_UNPACK = "Unpack it and name what is in it"
_EXPORT = "Export what is in it"
# First bytes -> what is never data, weights or a list, whatever it is called, and what to do.
_STRAYS: tuple[tuple[bytes, str, str], ...] = (
  (
    b"version https://git-lfs.github.com/",
    "a Git LFS pointer, not the file itself",
    "Fetch it, in the clone that it is from: git lfs pull",
  ),
  (b"\x1f\x8b", "a gzip archive", _UNPACK),
  (b"BZh", "a bzip2 archive", _UNPACK),
  (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
  (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
  (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
  (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
  (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _EXPORT),
)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body")
_RAW = "is a raw photograph ({}). Develop it to JPEG or PNG"
_PACKED = f"is a ZIP archive. {_UNPACK}"
# First bytes -> what to say. What is not here is told below.
_STARTS: tuple[tuple[bytes, str], ...] = (
  (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "is JPEG 2000. Convert it: magick FILE FILE.png"),
  (b"\xff\x4f\xff\x51", "is JPEG 2000. Convert it: magick FILE FILE.png"),
  (b"\x00\x00\x00\x0cJXL ", "is JPEG XL. Convert it: magick FILE FILE.png"),
  (b"\xff\x0a", "is JPEG XL. Convert it: magick FILE FILE.png"),
  (b"%PDF", "is a PDF. Convert its pages: pdftoppm -png FILE PAGE"),
  (b"8BPS", "is a Photoshop file. Convert it: magick FILE[0] FILE.png"),
  (b"PK\x03\x04", _PACKED),
  (b"PK\x05\x06", _PACKED),
  (b"SQLite format 3\x00", "is an SQLite database. Export it as JSON"),
  (b"PAR1", "is a Parquet file. Export it: python -c \"import pandas as p; "
   "p.read_parquet('FILE').to_json('FILE.json')\""),
  (b"\x93NUMPY", "is a NumPy array (.npy). Save it as PNG"),
  (b"\x80\x04\x95", "is a Python pickle, which rtune does not run. Save its contents as JSON"),
  (b"II*\x00\x10\x00\x00\x00CR", _RAW.format("Canon")),
  (b"FUJIFILMCCD-RAW", _RAW.format("Fujifilm")),
  (b"Bud1", "is a folder's settings (.DS_Store). Remove it"),
  (b"\x00\x05\x16\x07", "is what macOS keeps beside a file (AppleDouble). Remove it"),
)  # fmt: skip
_IMAGES: tuple[tuple[bytes, str], ...] = (
  (b"\xff\xd8\xff", "JPEG"),
  (b"\x89PNG\r\n\x1a\n", "PNG"),
  (b"GIF8", "GIF"),
  (b"II*\x00", "TIFF"),
  (b"MM\x00*", "TIFF"),
)


def kind_of(head: bytes) -> str:
  """What a file is, as the rest of a sentence with a mend; "" where its first bytes do not say.

  Args:
    head: the first `HEAD` bytes, or fewer.
  """
  stray = stray_of(head)
  if stray:
    return "is {}. {}".format(*stray)
  for start, what in _STARTS:
    if head.startswith(start):
      return what
  brand = brand_of(head)
  if brand:
    needed = {"HEIC": "pip install pillow-heif", "AVIF": "pip install 'Pillow>=11.3'"}[brand]
    return f"is {brand}, which is not read here. {needed}, or convert it: magick FILE FILE.jpg"
  if head[4:8] == b"ftyp":
    return "is a video. Take its frames: ffmpeg -i FILE FRAME_%06d.png"
  if b"<svg" in _text(head)[:512]:
    return "is an SVG drawing. Draw it as pixels: magick FILE FILE.png"
  return ""


def stray_of(head: bytes) -> tuple[str, str] | None:
  """What a pointer, an archive or a web page is, and a mend; None for what may be data."""
  for start, what, mend in _STRAYS:
    if head.startswith(start):
      return what, mend
  if _text(head).startswith(_HTML):
    mend = "Download the file itself, signed in if its host asks for it"
    return "an HTML page, such as a server sends in place of a file", mend
  return None


def _text(head: bytes) -> bytes:
  """Bytes as if they were text, in small letters, from the first one that is not blank."""
  return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()


def brand_of(head: bytes) -> str:
  """HEIC or AVIF, by the brands that the first box of such a file names; else ""."""
  if head[4:8] != b"ftyp":
    return ""
  length = min(int.from_bytes(head[:4], "big"), len(head))
  brands = [head[8:12], *(head[k : k + 4] for k in range(16, length, 4))]
  found = [_FTYP[brand] for brand in brands if brand in _FTYP]
  return "AVIF" if "AVIF" in found else found[0] if found else ""


def image_kind(head: bytes) -> str:
  """The kind of picture that a file is by its first bytes; "" where it is none that is known."""
  for start, what in _IMAGES:
    if head.startswith(start):
      return what
  if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
    return "WEBP"
  if head[:2] == b"BM" and len(head) > 26 and head[6:10] == bytes(4):
    return "BMP"
  if head[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6") and head[2:3].isspace():
    return "PPM"
  if head.startswith((b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")):
    return "JPEG 2000"
  if head.startswith((b"\x00\x00\x00\x0cJXL ", b"\xff\x0a")):
    return "JPEG XL"
  return brand_of(head)
