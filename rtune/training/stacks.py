"""Arrays that are alike, as one: a device takes as long to begin a small operation as a large one.

An optimizer that goes through the 250 parameters of a ViT-B and its decoder one by one is 3,000
operations; layers are alike, and 30 stacks hold them all.

Dimension key:
  N: arrays of a stack
"""

from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

Groups = Sequence[Sequence[int]]  # places of a tree's leaves; those of one group are a stack


def groups_of(tree: PyTree, kinds: Sequence[Hashable] = ()) -> Groups:
  """Leaves of one shape, type and kind belong together, in their order.

  Args:
    tree: arrays or their shapes.
    kinds: what else tells leaves apart, one a leaf.
  """
  found: dict[Hashable, list[int]] = {}
  for place, leaf in enumerate(jax.tree.leaves(tree)):
    kind = kinds[place] if kinds else None
    found.setdefault((leaf.shape, jnp.dtype(leaf.dtype), kind), []).append(place)
  return list(found.values())


def stack(tree: PyTree, groups: Groups) -> list[Array]:
  """[N, ...] of each group; leaves of none are left out. jit."""
  leaves = jax.tree.leaves(tree)
  return [jnp.stack([leaves[place] for place in group]) for group in groups]


def unstack(stacks: Sequence[Array], groups: Groups, like: PyTree) -> PyTree:
  """The inverse of `stack`: a tree as `like`, with zeros where a leaf is in no group. jit."""
  leaves, treedef = jax.tree.flatten(like)
  found = {
    place: one[row]
    for one, group in zip(stacks, groups, strict=True)
    for row, place in enumerate(group)
  }
  zeros = (found[i] if i in found else jnp.zeros_like(x) for i, x in enumerate(leaves))
  return jax.tree.unflatten(treedef, zeros)


def of_stacks(
  transformation: optax.GradientTransformation, groups: Groups
) -> optax.GradientTransformation:
  """Applies to the stacks of updates and parameters; leaves of no group do not change."""

  def init(params):
    return transformation.init(stack(params, groups))

  def update(updates, state, params):
    given = stack(updates, groups), state, stack(params, groups)
    changed, state = transformation.update(*given)
    return unstack(changed, groups, updates), state

  return optax.GradientTransformation(init, update)
