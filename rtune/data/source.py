"""The one thing a dataset must be: something with a length whose examples can be read by index."""

from typing import Any, Protocol, runtime_checkable

# One image and its annotation, as numpy arrays and plain values, before any transform.
Example = dict[str, Any]


@runtime_checkable
class Source(Protocol):
  """Random access to examples: a COCO folder, rendered scenes, a TFDS data source, a list."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...
