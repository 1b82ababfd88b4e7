"""How near a restorer that is applied again and again has come after each pass.

Dimension key:
  K: passes
  H, W: height and width of a picture in pixels
  C: channels
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rtune.errors import DataError
from rtune.metrics.metric import Metric
from rtune.metrics.pictures import Entry, restoring

_USUAL = ("PSNR", "SSIM", "UQI")


def by_pass(*, measures: Sequence[str] = _USUAL, luma: bool = False, border: int = 0) -> Metric:
  """The measures of `pictures.restoring` after each pass: PSNR_pass1 and so on; before, PSNR_given.

  The state is a list of (number of the pass, entry). A prediction is that of `restoring`, with
  `passes` [K, H, W, C] and `given` [H, W, C], as large.

  Args:
    measures: names; `luma` and `border` as of `restoring`.

  Raises:
    DataError: as `restoring`, and for a prediction without passes.
  """
  one = restoring(measures=measures, luma=luma, border=border)

  def update(
    state: list[tuple[int, Entry]], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[tuple[int, Entry]]:
    if "passes" not in prediction:
      raise DataError(
        "metric by_pass: predictions have no passes; leave it out of config.metrics, or take the "
        "policy rtune.policies.recursive:recursive."
      )
    for number, picture in enumerate([prediction["given"], *prediction["passes"]]):
      (entry,) = one.update([], {**prediction, "picture": picture}, truth)
      state.append((number, entry))
    return state

  def compute(state: list[tuple[int, Entry]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for number in sorted({number for number, _ in state}):
      name = f"pass{number}" if number else "given"
      values = one.compute([entry._replace(level=None) for at, entry in state if at == number])
      found |= {f"{measure}_{name}": value for measure, value in values.items()}
    return found

  return Metric(list, update, compute)


def passes_of(values: Mapping[str, Any], measure: str) -> list[tuple[int, str]]:
  """(pass, name) of the values of a measure, in order; what was given is pass 0."""
  found = [(0, f"{measure}_given")] if f"{measure}_given" in values else []
  for name in values:
    matched = re.fullmatch(rf"{measure}_pass(\d+)", name)
    found += [(int(matched[1]), name)] if matched else []
  return sorted(found)
