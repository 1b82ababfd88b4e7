"""SentencePiece models as vocabularies of a captioner. Needs the extra `rtune[pieces]`."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable
from typing import Any

from rtune.errors import DataError, UsageError
from rtune.text.tokenize import UNKNOWN

END_ID = 0
_UNKNOWN_MARK = "\u2047"  # how SentencePiece writes a piece that stands for anything


@dataclasses.dataclass(frozen=True)
class SentencePieces:
  """The pieces of a model: id 0 is the end of a caption, piece i of the model has the id i + 1.

  Attributes:
    model: contents of the .model file.
  """

  model: bytes = dataclasses.field(repr=False)

  @functools.cached_property
  def digest(self) -> str:
    """Names the model, 16 hexadecimal digits."""
    return hashlib.sha256(self.model).hexdigest()[:16]

  @functools.cached_property
  def vocab_size(self) -> int:
    """Pieces and the end."""
    return self._processor.get_piece_size() + 1

  def encode(self, caption: str) -> list[int]:
    """Ids of the pieces of a caption; no end."""
    # Halves of surrogate pairs have no UTF-8 and become question marks.
    text = caption.encode(errors="replace").decode()
    return [piece + 1 for piece in self._processor.encode(text)]

  def decode(self, ids: Iterable[int]) -> str:
    """What the pieces up to the end spell; <unk> for the unknown one, nothing for what is no id."""
    pieces = []
    for number in ids:
      if number == END_ID:
        break
      if 0 < number < self.vocab_size:
        pieces.append(int(number) - 1)
    return self._processor.decode(pieces).replace(_UNKNOWN_MARK, UNKNOWN).strip()

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the .model file, whole or not at all."""
    partial = f"{os.fspath(path)}.partial"
    with open(partial, "wb") as file:
      file.write(self.model)
    os.replace(partial, path)

  @functools.cached_property
  def _processor(self) -> Any:
    import sentencepiece  # optional, see `load_pieces`

    return sentencepiece.SentencePieceProcessor(model_proto=self.model)


def load_pieces(path: str | os.PathLike[str]) -> SentencePieces:
  """Reads a SentencePiece .model file.

  UsageError if the package or the file is missing, DataError if the file is no such model.
  """
  try:
    import sentencepiece  # noqa: F401
  except ImportError as error:
    raise UsageError(
      "SentencePiece models need the package sentencepiece; `pip install sentencepiece`"
    ) from error
  try:
    with open(path, "rb") as file:
      pieces = SentencePieces(file.read())
  except FileNotFoundError as error:
    raise UsageError(f"{path}: no such SentencePiece model") from error
  except OSError as error:
    raise UsageError(f"{path} cannot be read: {error.strerror}") from error
  try:
    empty = pieces.vocab_size < 2
  except (RuntimeError, ValueError) as error:
    raise DataError(f"{path} is no SentencePiece model, or is damaged: {error}") from error
  if empty:
    raise DataError(f"{path}: a SentencePiece model without pieces")
  return pieces
