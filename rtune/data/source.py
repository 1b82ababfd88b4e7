"""The one thing a dataset must be: something with a length whose examples can be read by index."""

from typing import Any, Protocol

# One image and its annotation, as numpy arrays and plain values, before any transform.
Example = dict[str, Any]


class Source(Protocol):
  """Random access to examples: a COCO folder, rendered scenes, a TFDS data source, a list."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...
