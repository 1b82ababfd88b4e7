"""Operations between devices, counted as often as they run, against programs that are known."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rtune.plan.collectives import collectives

SIDE = 64


def test_of_lines():
  text = """
  %add.1 = f32[8]{0} add(%a, %b)
  %all-reduce.1 = f32[10,20]{1,0:T(8,128)} all-reduce(%add.1), replica_groups={}
  ROOT %all-reduce.2 = (f32[4]{0}, /*index=1*/bf16[6]{0}) all-reduce(%x, %y), to_apply=%sum
  %all-gather-start.3 = (s32[1]{0}, s32[4]{0}) all-gather-start(%z), dimensions={0}
  %all-gather-done.3 = s32[4]{0} all-gather-done(%all-gather-start.3)
  %fusion = f32[3]{0} fusion(%all-reduce.1), kind=kLoop
  """
  assert collectives(text) == (3, 800 + 16 + 12 + 4 + 16)


def compiled_for_four() -> str:
  """A loop of seven, one from 3 to 20 that might end sooner, and one from where that ended to 30.

  Each round multiplies by a matrix whose rows are shared out, so it sums between devices once.
  """
  mesh = Mesh(np.array(jax.devices()), ("rows",))
  assert mesh.size == 4
  whole, rows = (NamedSharding(mesh, spec) for spec in (P(), P("rows", None)))

  def program(x, kernel):
    def once(x):
      return jax.lax.with_sharding_constraint(jnp.tanh(x @ kernel), whole)

    def until(end, state):
      def unfinished(state):
        return (state[0] < end) & jnp.any(state[1] > 0.1)

      return jax.lax.while_loop(unfinished, lambda s: (s[0] + 1, once(s[1])), state)

    x, _ = jax.lax.scan(lambda x, _: (once(x), None), x, None, length=7)
    return until(30, until(20, (jnp.int32(3), x)))

  given = [
    jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32, sharding=where) for where in (whole, rows)
  ]
  return jax.jit(program).lower(*given).compile().as_text()


def test_loops_of_compiled_programs():
  done = subprocess.run(
    [sys.executable, "-c", "import test_collectives as t; print(t.compiled_for_four())"],
    env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
    cwd=pathlib.Path(__file__).parent,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  found = collectives(done.stdout)
  rounds = 7 + 17 + 10
  # The conditions are looked at once more than the loops run, and may sum as well: one truth value.
  assert rounds <= found.number <= rounds + (17 + 1) + (10 + 1)
  np.testing.assert_allclose(found.bytes, rounds * SIDE * SIDE * 4, rtol=1e-3)


def test_loops_of_tpus():
  """Their programs do not say how often: the condition's constant and the counter's start do."""
  text = """
%pair.sum (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %all-reduce.8 = f32[4]{0:T(128)} all-reduce(%p), to_apply=%add
}
%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %s = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%s), index=1
  %fusion.1 = f32[4]{0:T(128)S(1)} fusion(%x), kind=kCustom, calls=%pair.sum
  ROOT %t = (s32[]{:T(128)}, f32[4]{0}) tuple(%i, %fusion.1)
}
%to_64 (s: (s32[], f32[4])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(64)
  %s.1 = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %constant.1), direction=LT
}
%to_100 (s: (s32[], f32[4])) -> pred[] {
  %constant.2 = s32[]{:T(128)} constant(100)
  %s.2 = (s32[]{:T(128)}, f32[4]{0}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%s.2), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%i.2, %constant.2), direction=LT
}
ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %constant.3 = s32[]{:T(128)} constant(4)
  %copy.1 = s32[]{:T(128)} copy(%constant.3)
  %tuple.1 = (s32[]{:T(128)}, f32[4]{0}) tuple(%copy.1, %x)
  %while.1 = (s32[]{:T(128)}, f32[4]{0}) while(%tuple.1), condition=%to_64, body=%body
  %i = s32[]{:T(128)} get-tuple-element(%while.1), index=0
  %y = f32[4]{0} get-tuple-element(%while.1), index=1
  %tuple.2 = (s32[]{:T(128)}, f32[4]{0}) tuple(%i, %y)
  %while.2 = (s32[]{:T(128)}, f32[4]{0}) while(%tuple.2), condition=%to_100, body=%body
  ROOT %z = f32[4]{0} get-tuple-element(%while.2), index=1
}
"""
  assert collectives(text) == (60 + 36, 16 * (60 + 36))
  assert collectives(text.replace("constant(64)", "parameter(1)")).number == 1 + 100
