"""How a phase measures its weights: every split of the data by all metrics, in their order."""

import pathlib
from collections.abc import Callable

from rtune.data.unreadable import left_out
from rtune.display.clock import Clock
from rtune.training.evaluated import TUNING
from rtune.training.evaluation import Judged, Judging, evaluate, scoring_of
from rtune.training.phases import Phase
from rtune.training.predicting import truth_described
from rtune.training.setup import Setup, metrics_of
from rtune.training.signs import tell_one_answer

_DATA = {"val": "the validation data"}  # what messages call it


def measuring(
  setup: Setup, folder: pathlib.Path, clock: Clock, phase: Phase, effort: int = 1
) -> Callable[..., dict[str, float]]:
  """(params, number of examples) -> {"val/...": value} and so on for each split.

  With more effort names end in what the policy calls it, such as "val/..._beam".
  """
  suffix = f"_{setup.policy.search}" if effort > 1 else ""
  predict = phase.predict(setup.task, setup.policy, effort)
  judging = Judging(
    setup.task,
    setup.frozen,
    setup.config.data,
    setup.mesh,
    metrics_of(setup.config, setup.task),
    scoring_of(setup.config, setup.task, setup.mesh),
    truth_described(setup.task, setup.policy) if phase.learns.answers else None,
  )

  def measure(
    params, num_examples: int = 0, between: Callable[[], None] = lambda: None
  ) -> dict[str, float]:
    values, answers = {}, []

    def each(one: Judged) -> None:
      answers.append(one.answer)
      between()

    own = judging._replace(frozen=phase.learns.frozen(setup.frozen, params))
    with clock("eval"):
      for name, source in {"val": setup.val, **setup.splits}.items():
        given = setup.config.data, _DATA.get(name, f"data.splits.{name}"), source, folder
        own = own._replace(unreadable=left_out(*given))
        answers.clear()
        found = evaluate(own, params, predict, source, num_examples, each)
        if phase.name in TUNING:
          tell_one_answer(phase.name, folder, given[1], answers)
        values |= {f"{name}/{key}{suffix}": value for key, value in found.items()}
    return values

  return measure
