"""Signs in the log that tuning goes wrong though every number is finite: each is told once."""

import math
import pathlib
from collections.abc import Mapping, Sequence

from rtune.display import console, logs

_EQUAL_LINES = 3  # lines of the log in a row without any difference between samples
_FALLEN = 0.05  # of its first value: then the entropy is as good as gone
_LEAST_ENTROPY = 0.05  # nats a decision, below which a policy was sure from the start
_SHORT = 0.25  # of their first length: then answers leave out most of what they said
_ALIKE = 1.05  # different answers an image, on average: as good as one
_ENOUGH = 10  # images, of which fewer may well deserve the same answer


class Signs:
  """Looks at each line of the log of a phase that is tuned.

  Args:
    num_samples: answers drawn for each image.
    phase: what messages call it.
    before: lines of the same phase that are in the log already; what has fallen is compared with
      the first of all.
  """

  def __init__(self, phase: str, num_samples: int, before: Sequence[logs.Row] = ()):
    self._phase, self._samples = phase, num_samples
    self._equal = 0
    self._first: dict[str, float] = {}
    for row in before:
      self._note(row)

  def _note(self, values: Mapping[str, int | float]) -> None:
    """Keeps the first values of the phase."""
    if "reward/mean" in values:
      given = {name: values[name] for name in ("entropy", "length") if name in values}
      self._first = given | self._first

  def look(self, step: int, values: Mapping[str, float]) -> None:
    """Warns of rewards and answers that teach nothing."""
    if "reward/mean" not in values:
      return
    unjudged = int(values["reward/unjudged"])
    if values["unrewarded_in_a_row"]:
      self._tell("unrewarded", step, "no image of the batch has a sample with a valid reward")
    elif unjudged:
      self._tell(
        "unjudged", step, f"{unjudged} images of the batch have no sample with a valid reward"
      )
    self._look_at_rewards(step, values)
    self._look_at_answers(step, values)

  def _look_at_rewards(self, step: int, values: Mapping[str, float]) -> None:
    equal = self._samples > 1 and values["reward/alike"] >= 1 and not values["reward/invalid"]
    self._equal = self._equal + 1 if equal else 0
    if self._equal >= _EQUAL_LINES:
      what = "all samples of every image get the same reward, so there is nothing to learn from"
      self._tell("constant", step, what)

  def _look_at_answers(self, step: int, values: Mapping[str, float]) -> None:
    unique = values.get("unique", 1.0)
    if self._samples > 1 and unique * self._samples <= _ALIKE:
      what = "all samples of an image are the same answer, or nearly so: the policy collapsed"
      self._tell("unique", step, what)
    self._note(values)
    length, long = values.get("length", 2.0), self._first.get("length", 0.0)
    if length <= 1:
      self._tell("length", step, "all answers end at their first decision: they are empty")
    elif length < _SHORT * long:
      what = f"answers have become short: {length:.3g} decisions, {long:.3g} at first"
      self._tell("short", step, f"{what}. The reward may be better off with nothing said")
    entropy, wide = values.get("entropy", math.nan), self._first.get("entropy", 0.0)
    # Of densities it may have any sign; there it says nothing by itself.
    if wide > _LEAST_ENTROPY and 0 <= entropy < _FALLEN * wide:
      what = f"the entropy has fallen from {wide:.3g} to {entropy:.3g}"
      self._tell("entropy", step, f"{what}: hardly anything else is tried any more")

  def _tell(self, kind: str, step: int, what: str) -> None:
    console.warn_once(f"{self._phase} {kind} {id(self)}", f"{self._phase} step {step}: {what}.")


def since(folder: pathlib.Path, start: int) -> list[logs.Row]:
  """The lines of the log after step `start`."""
  return [row for row in logs.read_metrics(folder) if row["step"] > start]


def tell_one_answer(
  phase: str, folder: pathlib.Path, data: str, answers: Sequence[bytes | None]
) -> None:
  """Warns where every image of an evaluation got the same answer, once in a workdir.

  For phases that tune: samples may still differ then, and rewards rise, by the one answer that is
  worth most where nothing is seen of an image. Imitation begins there, too, and goes on.

  Args:
    data: what messages call it.
    answers: a digest of each image's; None where answers are of real numbers.
  """
  if len(answers) < _ENOUGH or len({*answers}) > 1 or answers[0] is None:
    return
  console.warn_once(
    f"{phase} {folder} {data} one answer",
    f"{phase}: all {len(answers)} images of {data} got the same answer. The model does not look at "
    "them, or one answer wins the reward: imitate longer, on more images or on a pretrained "
    "backbone, before tuning, or raise reward.kl.",
  )
