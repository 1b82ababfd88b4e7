"""What an answer is made of: what a task says and a policy is built from.

Every space may have `weights`, one for each of its T decisions: how much REINFORCE acts on it.
"""

from typing import NamedTuple


class Ending(NamedTuple):
  """When a sequence is over: `token` at a position that is a multiple of `stride`."""

  token: int = 0
  stride: int = 1


class Tokens(NamedTuple):
  """A sequence of tokens: actions int [B, S, L], T = L.

  Attributes:
    length: tokens of a sequence.
    vocab_size: how many tokens there are.
    ending: what ends a sequence; None: it fills all of its length.
    weights: of each position; (): all 1.
  """

  length: int
  vocab_size: int
  ending: Ending | None = None
  weights: tuple[float, ...] = ()


class Labels(NamedTuple):
  """A class for each pixel: actions int [B, S, H, W], T = H * W."""

  height: int
  width: int
  classes: int
  weights: tuple[float, ...] = ()


class Image(NamedTuple):
  """A value for each pixel and channel: actions float [B, S, H, W, C]; T is the policy's choice."""

  height: int
  width: int
  channels: int
  weights: tuple[float, ...] = ()


class Steps(NamedTuple):
  """The numbers that an agent chooses, step by step: actions float [B, S, T, K]."""

  steps: int
  size: int
  weights: tuple[float, ...] = ()


class Places(NamedTuple):
  """An object or none at each place of a grid, T = rows * columns, row by row.

  Actions: {"present": bool [B, S, T], "label": int [B, S, T], "box": float [B, S, T, 4]}. A box is
  its center from the middle of its place and the logarithms of its height and width, (y, x, h, w),
  in places.
  """

  rows: int
  columns: int
  classes: int
  weights: tuple[float, ...] = ()


Space = Tokens | Labels | Image | Steps | Places
