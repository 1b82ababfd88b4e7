"""Shape annotations of rtune are executed in every test; real data are found beside the checkout."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("rtune", "beartype.beartype")

import pytest


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """The folder of real images and annotations; tests that need it skip where it is absent."""
  path = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
  if not path.is_dir():
    pytest.skip(f"needs real images in {path}, which is not there")
  return path
