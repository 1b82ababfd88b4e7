import io
import sys

import pytest

from rtune.errors import DataError, UsageError
from rtune.text.sentence_pieces import SentencePieces, load_pieces

sentencepiece = pytest.importorskip("sentencepiece")

CAPTIONS = [
  "a dog runs on the mat",
  "the cat sits on a red mat",
  "two birds and a dog",
  "a red bird sits",
] * 5


@pytest.fixture(scope="module")
def pieces() -> SentencePieces:
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(CAPTIONS), model_writer=model, vocab_size=26, minloglevel=2
  )
  return SentencePieces(model.getvalue())


def test_captions_make_the_round_trip(pieces):
  for caption in CAPTIONS[:4]:
    ids = pieces.encode(caption)
    assert 0 not in ids and max(ids) < pieces.vocab_size
    assert pieces.decode([*ids, 0, 5, 6]) == caption
  assert pieces.vocab_size == 27


@pytest.mark.parametrize("caption", ["", "😀", "nul\x00inside", "\ud800", "a dog " * 2500])
def test_any_string_is_taken(pieces, caption):
  ids = pieces.encode(caption)
  assert all(0 < number < pieces.vocab_size for number in ids)
  text = pieces.decode(ids)
  assert "<unk>" in text or text == caption.strip()


def test_ids_that_are_none_spell_nothing(pieces):
  assert pieces.decode([]) == pieces.decode([0, 7]) == pieces.decode([-3, 10**9]) == ""


def test_the_file_travels(pieces, tmp_path):
  pieces.save(tmp_path / "pieces.model")
  loaded = load_pieces(tmp_path / "pieces.model")
  assert loaded == pieces and hash(loaded) == hash(pieces) and loaded.digest == pieces.digest
  assert [path.name for path in tmp_path.iterdir()] == ["pieces.model"]


def test_wrong_files_are_named(tmp_path):
  path = tmp_path / "pieces.model"
  with pytest.raises(UsageError, match="no such SentencePiece model"):
    load_pieces(path)
  with pytest.raises(UsageError, match="cannot be read"):
    load_pieces(tmp_path)
  for content in (b"", b"not a model"):
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pieces\.model"):
      load_pieces(path)


def test_without_the_package_the_error_says_so(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "sentencepiece", None)
  with pytest.raises(UsageError, match="pip install sentencepiece"):
    load_pieces(tmp_path / "pieces.model")
