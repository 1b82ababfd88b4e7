"""What readers of weights say of a file that they cannot read."""

_MAX_ARRAYS = 10_000  # the largest models have some thousand
_LONGEST = 80


class Unreadable(ValueError):
  """A file of weights cannot be read; `mend` is what to do about it."""

  def __init__(self, problem: str, mend: str = "Fetch the file again."):
    super().__init__(problem)
    self.mend = mend


def check_count(count: int) -> None:
  """Raises Unreadable for more arrays than a model has, before any of them is read."""
  if count > _MAX_ARRAYS:
    raise Unreadable(
      f"it holds {count:,} arrays, and a model has at most {_MAX_ARRAYS:,}",
      "Give the file of one model.",
    )


def shown(name: str) -> str:
  """A name of a file's own on one line of sensible length."""
  text = name if name.isprintable() else ascii(name)
  return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
