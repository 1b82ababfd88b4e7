"""Objects in label maps: counted by scipy, and credit against all answers that there are."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from rtune.errors import UsageError
from rtune.predictions.labels import IGNORE, LabelMap
from rtune.rewards.objects import objects_found

pytestmark = pytest.mark.usefixtures("quick_compiles")

CLASSES = ("grass", "tree", "cow", "crow")


def plain(predicted, truth, share, price, least, of=CLASSES):
  """(reward, objects, found) by looking at one object after the other."""
  found = total = 0
  for label in (CLASSES.index(name) for name in of):
    numbered, count = ndimage.label(truth == label)
    for number in range(1, count + 1):
      own = numbered == number
      if own.sum() >= least:
        total += 1
        found += (predicted[own] == label).mean() > share
  known = truth != IGNORE
  wrong = (predicted != truth)[known].mean()
  return found - price * wrong, total, found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
  ("share", "price", "least"), [(0.5, 50.0, 4), (0.25, 3.0, 1), (0.0, 0.0, 9)]
)
def test_is_its_definition(seed, share, price, least):
  rng = np.random.default_rng(seed)
  truth = rng.choice(4, (8, 8), p=(0.4, 0.3, 0.2, 0.1)).repeat(2, 0).repeat(2, 1)
  truth[rng.random((16, 16)) < 0.05] = IGNORE
  predicted = np.where(rng.random((16, 16)) < 0.5, truth, rng.integers(0, 4, (16, 16)))
  predicted = np.where(predicted == IGNORE, 0, predicted)
  maps = LabelMap(jnp.asarray(predicted, jnp.int32)), LabelMap(jnp.asarray(truth, jnp.int32))
  settings = {"share": share, "price": price, "least": least}
  for of in ((), ("crow", "cow")):
    found = jax.jit(lambda *both, of=of: objects_found(*both, classes=CLASSES, of=of, **settings))
    out = found(*maps)
    expected = plain(predicted, truth, **settings, of=of or CLASSES)
    got = [out[name] for name in ("reward", "objects", "found")]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert 0 < expected[2] < expected[1] or share < 0.5


TRUTH = np.array([[0, 0, 1], [0, 2, 2], [IGNORE, 2, 2]], np.int32)
SETTINGS = {"classes": CLASSES, "of": CLASSES[:3], "share": 0.5, "price": 2.0, "least": 1}


def every_answer(classes=3):
  """All maps of the pixels that are labeled, and their rewards."""
  free = np.argwhere(TRUTH != IGNORE)
  answers = np.zeros((classes ** len(free), *TRUTH.shape), np.int32)
  for row, labels in enumerate(itertools.product(range(classes), repeat=len(free))):
    answers[row][tuple(free.T)] = labels
  truth = LabelMap(jnp.asarray(TRUTH))
  score = jax.vmap(lambda labels: objects_found(LabelMap(labels), truth, **SETTINGS))
  return answers, jax.tree.map(np.asarray, jax.jit(score)(jnp.asarray(answers)))


def test_credit_is_what_a_pixel_decides():
  """Credits of two answers that differ in one pixel are as far apart as their rewards."""
  answers, scores = every_answer()
  numbers = {answer.tobytes(): row for row, answer in enumerate(answers)}
  rng, differences = np.random.default_rng(0), []
  for row in rng.integers(0, len(answers), 300):
    for place in np.flatnonzero(TRUTH.ravel() != IGNORE):
      other = answers[row].copy()
      other.flat[place] = rng.integers(3)
      twin = numbers[other.tobytes()]
      reward, credit = (scores[name][row] - scores[name][twin] for name in ("reward", "credit"))
      differences.append(float(reward))
      assert credit[place] == pytest.approx(reward, abs=1e-6)
  assert np.count_nonzero(differences) > 100
  assert not scores["credit"][:, (TRUTH == IGNORE).ravel()].any()


def test_credit_weighs_alike_what_a_pixel_would_win_and_lose():
  """So that its mean over right and wrong is 0: what others decide is no noise of the pixel."""
  answers, scores = every_answer()
  free = scores["credit"] + SETTINGS["price"] * (answers != TRUTH).reshape(len(answers), 9) / 8
  inside = (TRUTH == 1).ravel()  # an object of one pixel, which always decides
  right = (answers == TRUTH).reshape(len(answers), 9)
  np.testing.assert_allclose(free[:, inside], np.where(right, 0.5, -0.5)[:, inside], atol=1e-6)


def test_gradient_with_credit_is_that_of_the_expected_reward():
  """Exact: over all answers, with the log-probability of each pixel times its own credit."""
  answers, scores = every_answer()
  logits = jax.random.normal(jax.random.key(1), (9, 3))
  known = (TRUTH != IGNORE).ravel()
  actions = answers.reshape(len(answers), -1)

  def log_prob(logits):
    every = jax.nn.log_softmax(logits)
    return jnp.where(known[None], every[jnp.arange(9)[None], actions], 0.0)

  def expected(logits):
    return jnp.sum(jnp.exp(jnp.sum(log_prob(logits), 1)) * scores["reward"])

  def reinforce(logits):
    chance = jax.lax.stop_gradient(jnp.exp(jnp.sum(log_prob(logits), 1)))
    return jnp.sum(chance[:, None] * scores["credit"] * log_prob(logits))

  found, right = jax.grad(reinforce)(logits), jax.grad(expected)(logits)
  np.testing.assert_allclose(found, right, atol=2e-6)
  assert np.abs(right).max() > 0.01


def test_where_there_is_no_object_mistakes_cost_all_the_same():
  ones, truth = (LabelMap(jnp.full((1, 3), label)) for label in (1, 0))
  for settings in ({"of": ("cow",), "least": 1}, {"least": 4}):
    assert float(objects_found(truth, truth, classes=CLASSES, **settings)["reward"]) == 0
    assert float(objects_found(ones, truth, classes=CLASSES, **settings)["reward"]) == -5
  assert float(objects_found(truth, truth, classes=CLASSES, least=3)["reward"]) == 1
  void = LabelMap(jnp.full((1, 3), IGNORE))
  out = objects_found(ones, void, classes=CLASSES, least=1)
  assert not any(np.asarray(part).any() for part in out.values())
  with pytest.raises(UsageError, match="'sheep', which is no class; there are grass"):
    objects_found(ones, truth, classes=CLASSES, of=("sheep",))
