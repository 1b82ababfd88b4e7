"""Leaves of one shape as stacks, and back."""

import jax
import jax.numpy as jnp
import numpy as np

from rtune.training import stacks


def make_tree():
  rng = np.random.default_rng(0)
  return {
    "layers": [
      {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=(4,))} for _ in range(3)
    ],
    "other": rng.normal(size=(4,)).astype(np.float16),  # of another type
    "scale": rng.normal(size=()),
  }


def test_stacks_of_one_shape_and_type_in_the_order_of_leaves():
  tree = jax.tree.map(jnp.asarray, make_tree())
  found = stacks.stack(tree, stacks.groups_of(tree))
  assert sorted(one.shape for one in found) == [(1,), (1, 4), (3, 3, 4), (3, 4)]
  kernels = next(one for one in found if one.shape == (3, 3, 4))
  for kernel, layer in zip(kernels, tree["layers"], strict=True):
    np.testing.assert_array_equal(kernel, layer["kernel"])


def test_unstacked_is_what_was_stacked_and_zero_elsewhere():
  tree = jax.tree.map(jnp.asarray, make_tree())
  groups = stacks.groups_of(tree)
  again = stacks.unstack(stacks.stack(tree, groups), groups, tree)
  jax.tree.map(np.testing.assert_array_equal, again, tree)
  without = [group for group in groups if len(group) > 1]
  part = stacks.unstack(stacks.stack(tree, without), without, tree)
  jax.tree.map(np.testing.assert_array_equal, part["layers"], tree["layers"])
  assert part["other"].dtype == jnp.float16
  assert not np.any(part["other"]) and not np.any(part["scale"])


def test_kinds_keep_leaves_apart():
  tree = make_tree()
  kinds = [place % 2 for place in range(len(jax.tree.leaves(tree)))]
  for group in stacks.groups_of(tree, kinds):
    assert len({kinds[place] for place in group}) == 1
