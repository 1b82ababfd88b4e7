"""Of parameters that do not train no gradient is taken."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from rtune import config as configs
from rtune.training.update import accumulate

SIDE = 64


def loss_fn(params, part):
  below = jnp.tanh(part["batch"]["x"] @ params["below"])
  return jnp.mean((below @ params["above"]) ** 2), {}


def gradient(multipliers, slices=1):
  optim = configs.Optim(lr_multipliers=multipliers)
  settings = types.SimpleNamespace(optim=optim, accumulate=slices)
  rng = np.random.default_rng(0)
  params = {name: rng.standard_normal((SIDE, SIDE), np.float32) for name in ("below", "above")}
  inputs = {"batch": {"x": rng.standard_normal((8, SIDE), np.float32)}}
  taken = jax.jit(lambda p, x: accumulate(loss_fn, p, x, settings, None)[0])
  compiled = taken.lower(params, inputs).compile()
  return compiled(params, inputs), compiled.cost_analysis()["flops"]


def test_what_does_not_train_has_no_gradient():
  for slices in (1, 2):
    whole, cost = gradient((), slices)
    held, less = gradient((("below", 0.0),), slices)
    np.testing.assert_allclose(held["above"], whole["above"], rtol=1e-6)
    assert np.abs(whole["below"]).max() > 0 and not np.any(held["below"])
    # Three products are left of five: there and back through `above`, and there through `below`.
    if slices == 1:
      assert less < 0.7 * cost
