"""An array on disk that is written row by row: who was stopped goes on where it was."""

import io
import os
import pathlib

import numpy as np
from numpy.typing import DTypeLike

from rtune.disk import refusals


class RowsFile:
  """A .npy file of a known shape, of which the first rows are there.

  Args:
    path: a file; its folder is made.
    shape: of the whole array, as the attribute.
  """

  def __init__(self, path: pathlib.Path, shape: tuple[int, ...], dtype: DTypeLike):
    self._path, self.shape, self._dtype = path, shape, np.dtype(dtype)
    self._row_bytes = self._dtype.itemsize * int(np.prod(shape[1:]))
    header = io.BytesIO()
    described = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    self._header = header.getvalue()

  @property
  def done(self) -> int:
    """Whole rows that are there; 0 where the file is of another array."""
    try:
      with open(self._path, "rb") as file:
        if file.read(len(self._header)) != self._header:
          return 0
        size = file.seek(0, os.SEEK_END) - len(self._header)
    except FileNotFoundError:
      return 0
    return min(size // self._row_bytes, self.shape[0])

  def write(self, first: int, rows: np.ndarray) -> None:
    """Rows from number `first` on, at most one after the last; what was after them is gone.

    Raises:
      StorageError: they could not be written.
    """
    with refusals(self._path, rows.nbytes):
      self._path.parent.mkdir(parents=True, exist_ok=True)
      descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
      with open(descriptor, "r+b") as file:
        if first == 0:
          file.write(self._header)
        file.seek(len(self._header) + first * self._row_bytes)
        file.truncate()
        file.write(np.ascontiguousarray(rows, self._dtype).tobytes())

  def rows(self, count: int) -> np.ndarray:
    """The first rows, read from the disk where they are asked for."""
    shape = (count, *self.shape[1:])
    return np.memmap(self._path, self._dtype, "r", len(self._header), shape)
