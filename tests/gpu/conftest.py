"""Tests of what is there on GPUs only, run by launch/gpu_check.sh; elsewhere they skip."""

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def gpu() -> jax.Device:
  """The first GPU."""
  if jax.default_backend() != "gpu":
    pytest.skip(f"needs a GPU; jax computes on {jax.default_backend()} here")
  return jax.devices()[0]


@pytest.fixture
def exact():
  """Products of float32 numbers in float32, where GPUs would round them to 10 bits."""
  with jax.default_matmul_precision("highest"):
    yield
