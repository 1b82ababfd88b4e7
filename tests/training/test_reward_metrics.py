"""Numbers about rewards, against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from rtune.training.reward_metrics import reward_metrics
from rtune.training.scoring import Scores


def metrics(rewards, valid) -> dict[str, float]:
  scores = Scores(jnp.asarray(rewards, jnp.float32), jnp.asarray(valid), {})
  return {name: float(value) for name, value in reward_metrics(scores).items()}


def test_the_spread_within_images():
  """As trl's `reward_std`: torch's deviation (n - 1) of each group, then the mean."""
  rewards = np.random.default_rng(0).normal(size=(5, 4)) * np.arange(5)[:, None]
  found = metrics(rewards, np.ones((5, 4), bool))
  assert found["reward/std_within"] == pytest.approx(
    np.std(rewards, axis=1, ddof=1).mean(), rel=1e-5
  )
  assert found["reward/std"] == pytest.approx(np.std(rewards), rel=1e-5)
  assert found["reward/alike"] == pytest.approx(1 / 5)


def test_what_is_not_valid_does_not_count():
  rewards = [[1.0, 3.0, np.nan], [np.nan, 5.0, np.nan], [np.nan] * 3]
  found = metrics(rewards, np.isfinite(rewards))
  # One image of three has more than one valid sample: theirs differ by sqrt(2).
  assert found["reward/std_within"] == pytest.approx(np.sqrt(2) / 3, rel=1e-5)
  assert found["reward/unjudged"] == 1


def test_of_one_sample_there_is_no_spread():
  assert metrics([[2.0], [3.0]], [[True], [True]])["reward/std_within"] == 0
