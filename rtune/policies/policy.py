"""What can be sampled and scored: a record of pure functions, as optax does it.

An answer consists of T decisions. The trainer knows of their log-probabilities and a mask, and of
nothing else: what decisions are is between a policy and its task.

Dimension key:
  B: batch of images
  S: samples for each image
  T: decisions of an answer: tokens; cells or pixels of a map; steps of an agent
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Float, PyTree

from rtune.policies.heads import Head

Params = PyTree
Inputs = PyTree  # what a task gives of each image, leaves [B, ...]
Actions = PyTree  # leaves [B, S, ...]; of `best` [B, ...]


class Sampled(NamedTuple):
  """Answers drawn for each image, and how likely each of their decisions was."""

  actions: Actions
  log_prob: Float[Array, "b s t"]


class Scored(NamedTuple):
  """Given answers under the current parameters.

  Attributes:
    log_prob: of each decision; 0 where the mask is 0.
    mask: 0 where a decision no longer counts (after the end of a sequence, void pixels), else 1.
    outputs: logits, or mean and scale, or values ..., leaves [B, S, ...]: read by this policy's own
      functions and by extra losses, never by the trainer. What nobody reads is never computed under
      jit.
  """

  log_prob: Float[Array, "b s t"]
  mask: Float[Array, "b s t"]
  outputs: PyTree


class Init(Protocol):
  """First parameters."""

  def __call__(self, key: Array, inputs: Inputs) -> Params: ...


class Sample(Protocol):
  """Draws from exactly the distribution that `score` describes: nothing is truncated."""

  def __call__(self, params: Params, inputs: Inputs, key: Array, num_samples: int) -> Sampled: ...


class Score(Protocol):
  """Differentiable. `key` is of dropout; None: there is none, as in `sample`."""

  def __call__(
    self, params: Params, inputs: Inputs, actions: Actions, key: Array | None = None
  ) -> Scored: ...


class Best(Protocol):
  """The likeliest answer that `effort` finds: 1 is the plain way, such as greedy decoding."""

  def __call__(self, params: Params, inputs: Inputs, effort: int = 1) -> Actions: ...


class Entropy(Protocol):
  """Of each decision's distribution, in nats."""

  def __call__(self, scored: Scored) -> Float[Array, "b s t"]: ...


class Divergence(Protocol):
  """KL(policy || reference) of each decision's distribution, in nats."""

  def __call__(self, scored: Scored, reference: Scored) -> Float[Array, "b s t"]: ...


class Describe(Protocol):
  """Numbers of this kind of answer, to be logged: the mean over all samples of each."""

  def __call__(self, scored: Scored) -> dict[str, Float[Array, "b s"]]: ...


def _nothing(scored: Scored) -> dict[str, Float[Array, "b s"]]:
  del scored
  return {}


class Control(NamedTuple):
  """What a learner that judges single decisions must know of a policy, such as actor-critic.

  The T decisions of an answer are `rounds` x T / rounds: in every round each of as many places
  decides, and meets what it has made of itself in the next one.

  Attributes:
    rounds: how often each place decides.
    features: F, what is seen of a state.
    numbers: A, what is chosen in it.
    states: (parameters, inputs, actions) -> (states [B, S, T, F], without gradient; mask [B, S, T],
      0 where nothing is left to decide).
    choices: actions -> [B, S, T, A].
    actor: (parameters, states [..., F]) -> distribution of choices, `heads.Normal` of [..., A].
    head: the functions of this distribution.
    play: (parameters, inputs, choices [B, S, T, A]) -> the actions that they come to; of as many as
      there are rounds each is that of all places.
  """

  rounds: int
  features: int
  numbers: int
  states: Callable[[Params, Inputs, Actions], tuple[Array, Array]]
  choices: Callable[[Actions], Array]
  actor: Callable[[Params, Array], Any]
  head: Head
  play: Callable[[Params, Inputs, Array], Actions]


class Backbone(NamedTuple):
  """What of a policy looks at an image before all else, and may be left as it is.

  Attributes:
    path: names of its parameters begin so, such as "encoder/backbone/".
    features: (parameters, inputs) -> [B, ...], which the policy takes in place of inputs.
  """

  path: str
  features: Callable[[Params, Inputs], Array]


class Policy(NamedTuple):
  """A distribution over answers for an image.

  Attributes:
    sequential: whether a decision's distribution depends on the decisions before it. Where it does
      not, KL and entropy have no part that decisions earn later.
    search: what an effort of more than 1 is called in the names of metrics, such as "beam"; "":
      `best` knows no other effort than 1.
    describes_truth: whether evaluation reports what `describe` says of the truth, too, such as how
      many bits it takes.
    compiler_options: of `jax.jit`, for programs that sample or decode on this machine.
    control: for learners that judge single decisions; None: there is nothing for them.
    backbone: whose features can be kept while it is not trained; None: there is none.
  """

  init: Init
  sample: Sample
  score: Score
  best: Best
  entropy: Entropy
  divergence: Divergence
  describe: Describe = _nothing
  sequential: bool = True
  search: str = ""
  describes_truth: bool = False
  compiler_options: dict[str, Any] | None = None
  control: Control | None = None
  backbone: Backbone | None = None
