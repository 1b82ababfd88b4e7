"""Every kind of file that people have in image folders, whole and broken."""

import io
import pathlib
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from rtune.data.files import images, opening
from rtune.data.files.images import check_image, read_image
from rtune.errors import DataError

RAMP = np.linspace(0, 255, 24 * 40).reshape(24, 40).astype(np.uint8)
COLORS = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 60)], axis=-1)
NOISE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def _save(path: pathlib.Path, pixels: np.ndarray | Image.Image, **options) -> pathlib.Path:
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  image.save(path, **options)
  return path


def _problem(path: pathlib.Path, max_pixels: int = 10**6) -> str:
  """What both functions say, which must agree and name the file."""
  text = check_image(path, max_pixels)
  assert isinstance(text, str), "the header check missed it"
  with pytest.raises(DataError) as error:
    read_image(path, max_pixels)
  assert str(path) in str(error.value) and text in str(error.value)
  assert "\n" not in str(error.value)
  return text


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tif", "ä b.png"])
def test_lossless_kinds_are_read_exactly(tmp_path, name):
  path = _save(tmp_path / name, COLORS)
  pixels = read_image(path)
  np.testing.assert_array_equal(pixels, COLORS)
  assert pixels.flags.writeable and pixels.flags.c_contiguous
  assert check_image(str(path)) == (24, 40)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_lossy_kinds(tmp_path, kind):
  path = _save(tmp_path / f"a.{kind}", COLORS, quality=95)
  assert np.abs(read_image(path).astype(int) - COLORS).mean() < 4
  assert check_image(path) == (24, 40)


def test_gray_becomes_three_equal_channels(tmp_path):
  pixels = read_image(_save(tmp_path / "a.png", RAMP))
  np.testing.assert_array_equal(pixels, np.repeat(RAMP[..., None], 3, axis=2))


def test_black_and_white(tmp_path):
  pixels = read_image(_save(tmp_path / "a.png", Image.fromarray(RAMP > 100)))
  np.testing.assert_array_equal(pixels[..., 1], np.where(RAMP > 100, 255, 0))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_are_scaled_not_clipped(tmp_path, name):
  values = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
  path = tmp_path / name
  if name.endswith("pgm"):
    path.write_bytes(b"P5 40 24 65535\n" + values.astype(">u2").tobytes())
  else:
    _save(path, values)
  pixels = read_image(path)
  np.testing.assert_allclose(pixels[..., 0], values / 257, atol=0.51)
  assert pixels.min() == 0 and pixels.max() == 255


def test_16_bit_color_png(tmp_path):
  # Pillow cannot write it: one 2 x 1 RGB image of 16 bits, (65535, 0, 32896) and (257, 514, 771).
  def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check

  row = b"\0" + np.array([65535, 0, 32896, 257, 514, 771], ">u2").tobytes()
  header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
  path = tmp_path / "a.png"
  path.write_bytes(
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", zlib.compress(row))
    + chunk(b"IEND", b"")
  )
  np.testing.assert_array_equal(read_image(path), [[[255, 0, 128], [1, 2, 3]]])


def test_floating_point_values_are_refused_with_a_mend(tmp_path):
  path = _save(tmp_path / "a.tif", RAMP.astype(np.float32))
  with pytest.raises(DataError, match="Convert it to 8 bits"):
    read_image(path)


def test_transparent_pixels_become_white(tmp_path):
  alpha = np.zeros((24, 40), np.uint8)
  alpha[:, :10], alpha[:, 10:20] = 255, 128
  pixels = read_image(_save(tmp_path / "a.png", np.dstack([COLORS, alpha])))
  np.testing.assert_array_equal(pixels[:, :10], COLORS[:, :10])
  np.testing.assert_allclose(pixels[:, 10:20], COLORS[:, 10:20] * (128 / 255) + 127, atol=1.5)
  assert (pixels[:, 20:] == 255).all()


def test_palette_with_and_without_transparency(tmp_path):
  palette = Image.fromarray((RAMP > 127).astype(np.uint8)).convert("P")
  palette.putpalette([200, 10, 20, 5, 6, 7])
  plain = read_image(_save(tmp_path / "plain.png", palette))
  assert {tuple(color) for color in plain.reshape(-1, 3)} == {(200, 10, 20), (5, 6, 7)}
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    clear = read_image(_save(tmp_path / "clear.png", palette, transparency=bytes([255, 0])))
  assert {tuple(color) for color in clear.reshape(-1, 3)} == {(200, 10, 20), (255, 255, 255)}


def test_cmyk_jpeg(tmp_path):
  cyan = Image.new("CMYK", (16, 8), (255, 0, 0, 0))
  path = _save(tmp_path / "a.jpg", cyan, quality=95)
  np.testing.assert_allclose(read_image(path)[4, 8], [0, 255, 255], atol=4)
  assert check_image(path) == (8, 16)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_first_frame_of_an_animation(tmp_path, kind):
  frames = [Image.new("RGB", (16, 8), color) for color in ("red", "blue", "lime")]
  options = {"lossless": True} if kind == "webp" else {}
  path = tmp_path / f"a.{kind}"
  frames[0].save(path, save_all=True, append_images=frames[1:], **options)
  np.testing.assert_array_equal(read_image(path), np.array(frames[0]))


# What to do to the stored picture for each EXIF orientation (EXIF 2.32, tag 0x0112).
TURNS = {
  1: None,
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(tmp_path, orientation, kind):
  options = {"lossless": True} if kind == "webp" else {}
  stored = Image.fromarray(read_image(_save(tmp_path / f"stored.{kind}", COLORS, **options)))
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = _save(tmp_path / f"turned.{kind}", COLORS, exif=exif, **options)
  turn = TURNS[orientation]
  expected = np.array(stored if turn is None else stored.transpose(turn))
  np.testing.assert_array_equal(read_image(path), expected)
  assert check_image(path) == expected.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_damaged_exif_does_not_lose_the_picture(tmp_path, exif):
  path = _save(tmp_path / "a.jpg", COLORS, exif=exif)
  assert read_image(path).shape == (24, 40, 3)
  assert check_image(path) == (24, 40)


def test_one_pixel_and_extreme_aspect(tmp_path):
  assert read_image(_save(tmp_path / "a.png", COLORS[:1, :1])).shape == (1, 1, 3)
  wide = _save(tmp_path / "b.png", np.zeros((10, 20000, 3), np.uint8))
  assert read_image(wide).shape == (10, 20000, 3)


def test_missing_empty_folder_and_text(tmp_path):
  assert "does not exist" in _problem(tmp_path / "no.jpg")
  (tmp_path / "empty.jpg").touch()
  assert "empty (0 bytes)" in _problem(tmp_path / "empty.jpg")
  (tmp_path / "folder.jpg").mkdir()
  assert "cannot be opened" in _problem(tmp_path / "folder.jpg")
  (tmp_path / "text.jpg").write_text("404")
  assert "is not an image" in _problem(tmp_path / "text.jpg")
  (tmp_path / "text.jpg").write_text("<html>404</html>")
  assert "is an HTML page" in _problem(tmp_path / "text.jpg")
  (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
  assert "is not an image" in _problem(tmp_path / "a.eps")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "bmp", "ppm", "tiff"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9, 0.99])
def test_truncated_files_are_found_by_both(tmp_path, kind, part):
  buffer = io.BytesIO()
  Image.fromarray(NOISE).save(buffer, kind)
  path = tmp_path / f"a.{kind}"
  path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * part)])
  assert "decoded" in (text := _problem(path)) or "not an image" in text


def test_bytes_after_the_end_do_no_harm(tmp_path):
  for kind in ("jpeg", "png"):
    path = _save(tmp_path / f"a.{kind}", NOISE)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert check_image(path) == (60, 80)
    assert read_image(path).shape == (60, 80, 3)


def test_pixel_limit_is_checked_before_decoding(tmp_path):
  path = _save(tmp_path / "a.png", NOISE)
  assert check_image(path, 60 * 80) == (60, 80)
  # Cut behind the header: decoding would fail, so the limit must speak first.
  path.write_bytes(path.read_bytes()[:200])
  assert "80 x 60 pixels, more than max_pixels = 4,799" in _problem(path, 60 * 80 - 1)


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_image_bombs(tmp_path, side):
  path = _save(tmp_path / "a.png", Image.new("1", (side, side)))
  opening._silence_size_warning.cache_clear()
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    text = _problem(path, 50_000_000)
  assert "pixels" in text and "Scale it down" in text
  assert not told
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert "Scale it down" in _problem(path, 50_000_000)


def test_real_photographs(shared_data):
  paths = sorted((shared_data / "coco_images" / "dev").glob("*.jpg"))[:40]
  assert len(paths) == 40
  for path in paths:
    assert check_image(path) == read_image(path).shape[:2]


@pytest.mark.parametrize(
  ("mode", "values", "expected"),
  [
    ("RGB", (9, 9, 9), ()),
    ("L", 9, ()),
    ("P", 3, ()),
    ("RGBA", (9, 9, 9, 255), ("alpha",)),
    ("LA", (9, 255), ("alpha",)),
    ("I;16", 9, ("16 bits",)),
  ],
)
def test_what_reading_changes_is_in_the_header(tmp_path, mode, values, expected):
  Image.new(mode, (5, 4), values).save(tmp_path / "image.png")
  assert images.conversions(tmp_path / "image.png") == expected


def test_color_with_16_bits_is_told(tmp_path):
  rows = b"".join(b"\0" + bytes(range(6 * 2)) for _ in range(2))  # 2 x 2 pixels of R, G, B

  def chunk(name, data):
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

  header = (2).to_bytes(4) + (2).to_bytes(4) + bytes([16, 2, 0, 0, 0])
  body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
  path = tmp_path / "deep.png"
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
  assert images.conversions(path) == ("16 bits",)
  assert images.conversions(tmp_path / "missing.png") == ()
