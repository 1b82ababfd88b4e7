"""Files that are something else than their name says."""

import io
import json
import pathlib

import pytest
from odd_base import HEIGHT, WIDTH, Row, both, detection, picture, pictures, refused, write
from PIL import Image

from rtune.data.files import images as image_reader
from rtune.data.files import validate
from rtune.data.files.opening import formats
from rtune.data.sources.coco import CocoDetection
from rtune.data.sources.photographs import Photographs
from rtune.errors import DataError

_BYTES = "First bytes"
_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
_EMPTY_JPEG = io.BytesIO()
Image.new("RGB", (8, 8)).save(_EMPTY_JPEG, "JPEG")


def _ftyp(brand: bytes, *others: bytes) -> bytes:
  body = b"ftyp" + brand + bytes(4) + b"".join(others)
  return (4 + len(body)).to_bytes(4, "big") + body + bytes(64)


def _image(content: bytes, *texts: str):
  """A picture file with other bytes is an error with these texts."""

  def check(folder: pathlib.Path) -> None:
    pictures(folder)
    (folder / "0001.jpg").write_bytes(content)
    refused(lambda data: None, "0001.jpg", *texts)(folder)
    with pytest.raises(DataError, match=r"0001\.jpg"):
      image_reader.read_image(folder / "0001.jpg")

  return check


def _json(content, *texts: str):
  return refused(lambda data: content, *texts)


def _heic(folder: pathlib.Path) -> None:
  if "HEIF" in formats():
    pytest.skip("pillow-heif reads it here")
  _image(_ftyp(b"heic", b"mif1"), "HEIC", "pip install pillow-heif")(folder)


def _avif(folder: pathlib.Path) -> None:
  if "AVIF" not in formats():
    pytest.skip("this Pillow reads no AVIF")
  pictures(folder)
  picture(1).save(folder / "0001.avif", quality=90)
  (folder / "0001.avif").rename(folder / "0001.jpg")
  source = CocoDetection(write(folder, detection()))
  assert source[0]["image"].shape == (HEIGHT, WIDTH, 3)


def _list_is_zip(folder: pathlib.Path) -> None:
  path = write(folder, b"PK\x03\x04" + bytes(50), "list.txt")
  with pytest.raises(DataError, match="is a ZIP archive"):
    Photographs(path)
  with pytest.raises(DataError, match="Git LFS pointer"):
    validate.load_lines(write(folder, _LFS, "list.txt"))


def _utf16(folder: pathlib.Path) -> None:
  pictures(folder)
  for encoding in ("utf-16", "utf-8-sig"):
    path = write(folder, json.dumps(detection()).encode(encoding))
    assert both(CocoDetection(path)) == (8, 8)


ROWS = [
  Row(
    _BYTES,
    "a Git LFS pointer in place of a picture",
    "an error: git lfs pull",
    _image(_LFS, "Git LFS pointer", "git lfs pull"),
  ),
  Row(
    _BYTES,
    "a Git LFS pointer in place of the JSON",
    "an error: git lfs pull",
    _json(_LFS, "Git LFS pointer", "git lfs pull"),
  ),
  Row(
    _BYTES,
    "an HTML page in place of a picture",
    "an error that says so",
    _image(b"\n<!DOCTYPE html><html>", "is an HTML page"),
  ),
  Row(
    _BYTES,
    "an HTML page in place of the JSON",
    "an error that says so",
    _json(b"<html><body>Sign in</body></html>", "is an HTML page"),
  ),
  Row(
    _BYTES,
    "HEIC called .jpg",
    "read where pillow-heif is installed, else an error that names it",
    _heic,
  ),
  Row(_BYTES, "AVIF called .jpg", "read where Pillow can", _avif),
  Row(_BYTES, "a damaged AVIF", "an error", _image(_ftyp(b"avif", b"mif1"), "0001.jpg")),
  Row(
    _BYTES,
    "a video called .jpg",
    "an error with the line that takes its frames",
    _image(_ftyp(b"isom"), "is a video", "ffmpeg"),
  ),
  Row(
    _BYTES,
    "JPEG 2000",
    "an error with the line that converts it",
    _image(b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60), "JPEG 2000", "magick"),
  ),
  Row(
    _BYTES,
    "JPEG XL",
    "an error with the line that converts it",
    _image(b"\xff\x0a" + bytes(60), "JPEG XL"),
  ),
  Row(
    _BYTES,
    "a PDF",
    "an error with the line that converts it",
    _image(b"%PDF-1.7\n" + bytes(60), "pdftoppm"),
  ),
  Row(
    _BYTES,
    "an SVG drawing",
    "an error with the line that converts it",
    _image(b"<svg xmlns='x'></svg>", "SVG"),
  ),
  Row(
    _BYTES,
    "a Photoshop file",
    "an error with the line that converts it",
    _image(b"8BPS" + bytes(60), "Photoshop"),
  ),
  Row(
    _BYTES,
    "a ZIP archive in place of the JSON",
    "an error: unpack it",
    _json(b"PK\x03\x04" + bytes(60), "is a ZIP archive"),
  ),
  Row(
    _BYTES,
    "a gzip archive in place of the JSON",
    "an error: unpack it",
    _json(b"\x1f\x8b" + bytes(60), "is a gzip archive"),
  ),
  Row(
    _BYTES,
    "a ZIP archive or a Git LFS pointer in place of a list of names",
    "an error that says so",
    _list_is_zip,
  ),
  Row(
    _BYTES,
    "a NumPy array called .jpg",
    "an error that says so",
    _image(b"\x93NUMPY\x01\x00" + bytes(60), "NumPy"),
  ),
  Row(_BYTES, "an empty picture", "an error", _image(b"", "is empty (0 bytes)")),
  Row(
    _BYTES,
    "a picture that is cut short",
    "an error",
    _image(_EMPTY_JPEG.getvalue()[:-20], "0001.jpg"),
  ),
  Row(_BYTES, "JSON in UTF-16, or with a byte order mark", "read", _utf16),
]
