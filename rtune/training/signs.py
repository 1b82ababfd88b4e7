"""Signs in the log that tuning goes wrong though every number is finite: each is told once."""

from collections.abc import Mapping

from rtune.display import console

_EQUAL_LINES = 3  # lines of the log in a row without any difference between samples
_FALLEN = 0.05  # of its first value: then the entropy is as good as gone
_LEAST_ENTROPY = 0.05  # nats a decision, below which a policy was sure from the start


class Signs:
  """Looks at each line of the log of a phase that is tuned.

  Args:
    num_samples: answers drawn for each image.
    phase: what messages call it.
  """

  def __init__(self, phase: str, num_samples: int):
    self._phase, self._samples = phase, num_samples
    self._equal = 0
    self._first_entropy: float | None = None

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
    if self._samples > 1 and unique * self._samples <= 1 + 1e-6:
      self._tell(
        "unique", step, "all samples of an image are the same answer: the policy collapsed"
      )
    if values.get("length", 2.0) <= 1:
      self._tell("length", step, "all answers end at their first decision: they are empty")
    entropy = values.get("entropy")
    if entropy is None:
      return
    if self._first_entropy is None:
      self._first_entropy = entropy
    # Of densities it may have any sign; there it says nothing by itself.
    if self._first_entropy > _LEAST_ENTROPY and 0 <= entropy < _FALLEN * self._first_entropy:
      what = f"the entropy has fallen from {self._first_entropy:.3g} to {entropy:.3g}"
      self._tell("entropy", step, f"{what}: hardly anything else is tried any more")

  def _tell(self, kind: str, step: int, what: str) -> None:
    console.warn_once(f"{self._phase} {kind} {id(self)}", f"{self._phase} step {step}: {what}.")
