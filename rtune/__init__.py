"""rtune: train vision models by imitation, then tune them with REINFORCE on the task's reward.

```python
import rtune

rtune.train("configs/detection_recall.py", "runs/mine")
model = rtune.load("runs/mine")
answers = model.predict(["photo.jpg"])
samples = model.sample("photo.jpg", 8)
numbers = rtune.evaluate("runs/mine").values
```

docs/python_api.md has more. Importing this is light: what a name stands for is imported when it is
asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from rtune.display.gallery import gallery
  from rtune.evaluate import evaluate
  from rtune.inference.model import Answer, Model, load
  from rtune.main import train
  from rtune.report.plot import curves

# Names and where they are; "" stands for the module itself, which can be called.
_PLACES = {
  "Answer": ("rtune.inference.model", "Answer"),
  "Model": ("rtune.inference.model", "Model"),
  "curves": ("rtune.report.plot", "curves"),
  "evaluate": ("rtune.evaluate", ""),
  "gallery": ("rtune.display.gallery", "gallery"),
  "load": ("rtune.inference.model", "load"),
  "train": ("rtune.main", "train"),
}
__all__ = ["Answer", "Model", "curves", "evaluate", "gallery", "load", "train"]


def __getattr__(name: str) -> Any:
  if name not in _PLACES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module_name, attribute = _PLACES[name]
  module = importlib.import_module(module_name)
  return getattr(module, attribute) if attribute else module


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
