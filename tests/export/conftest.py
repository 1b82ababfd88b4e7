"""How programs are traced here, and how commands start up."""

import jaxtyping
import pytest

from rtune.devices import processes


@pytest.fixture(autouse=True)
def symbols(quick_compiles):
  """A batch of any size has a symbol for its size, which annotations of shapes cannot compare."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)
