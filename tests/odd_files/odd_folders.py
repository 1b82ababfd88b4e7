"""Folders of pictures as cameras, servers and notebooks leave them."""

import pathlib

import pytest
from odd_base import Row, picture, pictures

from rtune.data.files import folder as folders
from rtune.data.files.opening import formats
from rtune.data.sources.clean import CleanPictures
from rtune.data.sources.label_folder import LabelFolder
from rtune.data.sources.pairs import Pairs
from rtune.data.sources.photographs import Photographs

_KIND = "Folders of pictures"
_HEIC = (24).to_bytes(4, "big") + b"ftypheic" + bytes(80)


def _found(
  names: tuple[str, ...], expected: tuple[str, ...], passed: tuple[str, ...] = (), **contents
):
  """Of these pictures, and of files with these contents, which are found and passed over."""

  def check(folder: pathlib.Path) -> None:
    for number, name in enumerate(names):
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      picture(number).save(folder / name, "PNG" if name.endswith(("png", "bin")) else "JPEG")
    for name, content in contents.items():
      (folder / name.replace("_DOT_", ".")).write_bytes(content)
    result = folders.search(folder)
    assert tuple(path.relative_to(folder).as_posix() for path in result.images) == expected
    assert tuple(path.relative_to(folder).as_posix() for path, _ in result.passed_over) == passed
    told = "\n".join(Photographs(str(folder)).warnings)
    assert all(name in told for name in passed) and ("passed over" in told) == bool(passed)
    assert len(CleanPictures(str(folder), check_images=False)) == len(expected)

  return check


def _avif(folder: pathlib.Path) -> None:
  if "AVIF" not in formats():
    pytest.skip("this Pillow reads no AVIF")
  picture(1).save(folder / "a.avif")
  assert [path.name for path in folders.search(folder).images] == ["a.avif"]


def _heic(folder: pathlib.Path) -> None:
  if "HEIF" in formats():
    pytest.skip("pillow-heif reads it here")
  _found(("a.jpg",), ("a.jpg",), ("b.heic",), b_DOT_heic=_HEIC)(folder)


def _linked(folder: pathlib.Path) -> None:
  pictures(folder / "photos", ("a.jpg",))
  pictures(folder / "store", ("b.jpg",))
  (folder / "photos" / "inner").mkdir()
  picture(3).save(folder / "photos" / "inner" / "c.png")
  (folder / "photos" / "more").symlink_to(folder / "store")
  (folder / "photos" / "again").symlink_to(folder / "photos" / "inner")
  (folder / "photos" / "loop").symlink_to(folder / "photos")
  result = folders.search(folder / "photos")
  assert [path.name for path in result.images] == ["a.jpg", "c.png"]
  assert [path.name for path, _ in result.passed_over] == ["more"]


def _masks(folder: pathlib.Path) -> None:
  for number, name in enumerate(("1", "2")):
    pictures(folder, (f"images/{name}.jpg",))
    picture(number).convert("L").point(lambda value: value // 128).save(
      _made(folder / "masks") / f"{name}.png"
    )
  (_made(folder / "masks" / ".ipynb_checkpoints") / "1-checkpoint.png").write_bytes(b"")
  pictures(folder, ("images/@eaDir/1.jpg",))
  source = LabelFolder(str(folder), images="images", masks="masks", classes=["a", "b"])
  assert len(source) == 2


def _pairs(folder: pathlib.Path) -> None:
  pictures(folder, ("noisy/1.jpg", "clean/1.jpg", "noisy/.trash/2.jpg"))
  assert len(Pairs(str(folder), degraded="noisy", clean="clean")) == 1


def _made(folder: pathlib.Path) -> pathlib.Path:
  folder.mkdir(parents=True, exist_ok=True)
  return folder


ROWS = [
  Row(
    _KIND,
    "JPEGs called .jfif, .jpe, .JPG, .mpo",
    "found",
    _found(("a.jfif", "b.jpe", "c.JPG", "d.mpo"), ("a.jfif", "b.jpe", "c.JPG", "d.mpo")),
  ),
  Row(
    _KIND,
    "pictures with another ending, or none",
    "found, by their first bytes",
    _found(("a.img", "b", "c.bin"), ("a.img", "b", "c.bin")),
  ),
  Row(_KIND, "AVIF", "found where Pillow reads it", _avif),
  Row(
    _KIND,
    "HEIC",
    "passed over, in one warning, where it cannot be read",
    _heic,
  ),
  Row(
    _KIND,
    "JPEG 2000, JPEG XL",
    "passed over, in one warning",
    _found(
      ("a.jpg",),
      ("a.jpg",),
      ("b.jp2", "c.jxl"),
      b_DOT_jp2=b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(9),
      c_DOT_jxl=b"\xff\x0a" + bytes(9),
    ),
  ),
  Row(
    _KIND,
    "raw photographs (.nef, .dng, ...)",
    "passed over, in one warning",
    _found(("a.jpg",), ("a.jpg",), ("b.nef",), b_DOT_nef=b"MM\x00*" + bytes(99)),
  ),
  Row(
    _KIND,
    "text, JSON, videos and archives",
    "no pictures",
    _found(
      ("a.jpg",),
      ("a.jpg",),
      b_DOT_txt=b"P1 is a place. BM is not.",
      c_DOT_json=b"{}",
      d_DOT_zip=b"PK\x03\x04",
    ),
  ),
  Row(
    _KIND,
    ".ipynb_checkpoints, .thumbnails and other hidden folders",
    "left alone",
    _found(("a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", ".thumbnails/x.png"), ("a.jpg",)),
  ),
  Row(
    _KIND,
    ".Trash-1000, $RECYCLE.BIN, #recycle, lost+found",
    "left alone",
    _found(
      (
        "a.jpg",
        ".Trash-1000/files/b.jpg",
        "$RECYCLE.BIN/c.jpg",
        "#recycle/d.jpg",
        "lost+found/e.jpg",
      ),
      ("a.jpg",),
    ),
  ),
  Row(
    _KIND,
    "@eaDir (Synology), __MACOSX (ZIP)",
    "left alone",
    _found(("a.jpg", "@eaDir/a.jpg", "__MACOSX/a.jpg"), ("a.jpg",)),
  ),
  Row(
    _KIND,
    "._a.jpg (macOS) and other hidden files",
    "left alone",
    _found(("a.jpg", "._a.jpg", ".b.png"), ("a.jpg",)),
  ),
  Row(
    _KIND,
    "links to folders",
    "passed over, in one warning, unless they lead to where the search comes anyway",
    _linked,
  ),
  Row(_KIND, "hidden and trash folders among masks", "left alone", _masks),
  Row(_KIND, "hidden folders among pairs", "left alone", _pairs),
]
