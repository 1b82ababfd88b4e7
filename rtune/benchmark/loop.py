"""How fast a config's own steps, data and evaluation are: the very functions that training calls.

Dimension key: that of training/update.py.
"""

import contextlib
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from rtune import config as configs
from rtune.benchmark.decode import sampling_floor
from rtune.benchmark.row import Row
from rtune.data import loader
from rtune.devices import sharding
from rtune.devices.compiling import jit_once
from rtune.display.clock import Clock
from rtune.errors import UsageError
from rtune.models import encoder_decoder
from rtune.plan import counts
from rtune.policies.space import Tokens
from rtune.training import code_weights
from rtune.training.evaluation import Judging, evaluate, scoring_of
from rtune.training.phases import assemble, phase_of
from rtune.training.predicting import best_answers
from rtune.training.setup import Setup, example_inputs, metrics_of
from rtune.training.update import Programs, State, Step


class Loop(NamedTuple):
  """A config made real, with parameters of its own.

  Attributes:
    setup: what the config names.
    params: random, on the devices.
    model: for its sizes.
    image_size: pixels of a side, as the task gives them.
    length: tokens of an answer.
  """

  setup: Setup
  params: Any
  model: encoder_decoder.EncoderDecoder
  image_size: int
  length: int


def make_loop(setup: Setup) -> Loop:
  """Parameters for a config's model; nothing is read but one example."""
  setup = setup._replace(frozen=code_weights.random(setup.task, setup.mesh))
  inputs = example_inputs(setup.task, setup.val[0])
  inputs = jax.tree.map(lambda x: jax.numpy.repeat(x, setup.mesh.size, axis=0), inputs)
  params = jit_once(setup.policy.init)(jax.random.key(0), inputs)
  space, counted = setup.task.space(), configs.Config().policy.fn
  if not isinstance(space, Tokens) or setup.config.policy.fn != counted:
    raise UsageError(f"floors are known of the policy {counted} only; choose a config that has it.")
  model = encoder_decoder.build(setup.config.model, space.vocab_size, space.length)
  return Loop(setup, params, model, inputs.shape[1], space.length)


def sizes_of(loop: Loop, batch: int, samples: int) -> counts.Sizes:
  """What is counted for a step of this config, on one device."""
  share = batch // loop.setup.mesh.size
  return counts.Sizes(loop.model, loop.image_size, loop.length, share, samples)


def train_rows(loop: Loop, machine: counts.Machine, repeats: int) -> list[Row]:
  """Imitation steps on real batches, one after the other as in training."""
  phase = loop.setup.config.mle
  with train_batches(loop.setup, phase.batch_size) as batches:
    seconds, waits = _run(loop, imitation(loop), batches, repeats)
  answers = 2 if phase.mistakes.fn else 1  # the truth, and mistakes to learn from
  floor = counts.floor(counts.training(sizes_of(loop, phase.batch_size, answers)), machine)
  median, wait = statistics.median(seconds), statistics.median(waits)
  note = f"waits for data {1e3 * wait:.1f} ms, {100 * wait / (wait + median):.1f} % of a step"
  return [Row("train", "imitation step", median, phase.batch_size, "image", floor, note)]


def data_rows(loop: Loop, repeats: int) -> list[Row]:
  """Batches as the loader's threads make them, with nothing else to do."""
  size = loop.setup.config.mle.batch_size
  with train_batches(loop.setup, size) as batches:
    ahead = 2 * loop.setup.config.data.prefetch + 1
    for _ in range(ahead):
      next(batches)
    start = time.perf_counter()
    for _ in range(repeats * ahead):
      next(batches)
    seconds = (time.perf_counter() - start) / (repeats * ahead)
  return [Row("data", "batches, loader alone", seconds, size, "image")]


def eval_rows(loop: Loop, machine: counts.Machine, repeats: int) -> list[Row]:
  """Evaluation of a few batches with its metric, and the greedy decoding inside it."""
  setup = loop.setup
  size = min(setup.config.data.eval_batch_size, len(setup.val))
  predict = best_answers(setup.task, setup.policy)
  scoring = scoring_of(setup.config, setup.task, setup.mesh)
  metrics = metrics_of(setup.config, setup.task)
  judging = Judging(setup.task, setup.frozen, setup.config.data, setup.mesh, metrics, scoring)
  number = min(2 * size, len(setup.val))
  whole, decoding = [], []
  batch = next(_eval_batches(setup))
  for _ in range(repeats + 1):
    start = time.perf_counter()
    evaluate(judging, loop.params, predict, setup.val, number)
    whole.append(time.perf_counter() - start)
    start = time.perf_counter()
    jax.block_until_ready(predict(setup.frozen, loop.params, batch))
    decoding.append(time.perf_counter() - start)
  sizes = sizes_of(loop, setup.config.data.eval_batch_size, 1)
  once = sampling_floor(sizes, machine)
  scored = counts.floor(counts.forward(sizes), machine)
  floor = counts.Floor(once.seconds + scored.seconds, once.binds)
  decode = statistics.median(decoding[1:])
  full = statistics.median(whole[1:])
  share = decode * number / size / full
  note = f"decoding is {100 * share:.0f} % of it"
  return [
    Row("eval", "greedy decoding and scores of a batch", decode, size, "image", floor),
    Row("eval", f"evaluation of {number} images", full, number, "image", note=note),
  ]


def step_rows(loop: Loop, machine: counts.Machine, repeats: int) -> list[Row]:
  """A reward step by its parts: data, sample, score, update."""
  setup, phase = loop.setup, loop.setup.config.reward
  clock, laps = Clock(), []
  state, step = tuning(loop, clock)
  with train_batches(setup, phase.batch_size) as batches:
    for _ in range(repeats + 2):
      clock.take()
      with clock("data"):
        batch = on_devices(loop, next(batches))
      with clock("update"):
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
      laps.append(clock.take())
  return reward_rows("step", loop, machine, laps[2:])


def reward_rows(
  part: str, loop: Loop, machine: counts.Machine, laps: Sequence[Mapping[str, float]]
) -> list[Row]:
  """Rows of reward steps by their parts, from the seconds of each part in each step."""
  phase = loop.setup.config.reward
  sizes = sizes_of(loop, phase.batch_size, phase.num_samples)
  floors = {
    "sample": sampling_floor(sizes, machine),
    "update": counts.floor(counts.training(sizes), machine),
  }
  answers = phase.batch_size * phase.num_samples
  total = statistics.median(sum(lap.values()) for lap in laps)
  rows = []
  for name in ("data", "sample", "score", "update"):
    median = statistics.median(lap[name] for lap in laps)
    share = f"{100 * median / total:.1f} % of a step"
    rows.append(
      Row(part, f"reward step: {name}", median, answers, "answer", floors.get(name), share)
    )
  least = counts.Floor(sum(f.seconds for f in floors.values()), floors["sample"].binds)
  rows.append(Row(part, "reward step, whole", total, phase.batch_size, "image", least))
  return rows


def _run(
  loop: Loop, made: tuple[State, Step], batches: Iterator[Any], repeats: int
) -> tuple[list[float], list[float]]:
  """Seconds of each step and of the wait for its batch, as the loop of training has them."""
  state, step = made
  seconds, waits = [], []
  for _ in range(repeats + 2):
    start = time.perf_counter()
    batch = on_devices(loop, next(batches))
    waits.append(time.perf_counter() - start)
    start = time.perf_counter()
    state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    seconds.append(time.perf_counter() - start)
  return seconds[2:], waits[2:]


def imitation(loop: Loop) -> tuple[State, Step]:
  """The state and the step of the phase mle."""
  state, programs = assembled(loop, "mle", Clock())
  return state, programs.step


def tuning(loop: Loop, clock: Clock) -> tuple[State, Step]:
  """The state and the step of the phase reward."""
  state, programs = assembled(loop, "reward", clock)
  return state, programs.step


def assembled(loop: Loop, phase: str, clock: Clock) -> tuple[State, Programs]:
  """The first state of a phase, and what its steps do."""
  setup = loop.setup
  made = assemble(
    phase_of(phase),
    setup.config,
    setup.task,
    setup.policy,
    setup.frozen,
    setup.mesh,
    loop.params,
    clock,
  )
  return made.init(loop.params), made.programs


@contextlib.contextmanager
def train_batches(setup: Setup, size: int) -> Iterator[Iterator[dict]]:
  """Batches as a phase of imitation reads them."""
  data = setup.config.data
  batches = loader.train_batches(
    setup.train,
    setup.task.example,
    batch_size=size,
    seed=0,
    num_threads=data.threads,
    prefetch=data.prefetch,
  )
  with contextlib.closing(batches):
    yield batches


def on_devices(loop: Loop, batch: Any) -> dict[str, jax.Array]:
  """A batch where steps want it."""
  return sharding.put_batch(loop.setup.mesh, batch)


def _eval_batches(setup: Setup) -> Iterator[dict]:
  data = setup.config.data
  rows, alone = sharding.eval_batch(data.eval_batch_size, setup.mesh)
  batches = loader.eval_batches(
    setup.val, setup.task.example, batch_size=rows, alone=alone, num_threads=1, prefetch=0
  )
  with contextlib.closing(batches):
    for batch in itertools.islice(batches, 1):
      yield sharding.put_batch(setup.mesh, batch.features)
