"""Steps at the sizes of the papers, as cases: what each changes in a config's variant `paper`.

The first are the other end, the steps of a default config, which are too small for any device.
Models, images and answers are those of 2302.08242 and UViM (2205.10337), batches are what one GPU
of 80 GB takes. Data are noise (rtune/benchmark/noise.py). Small counterparts show on any machine
that the cases run.
"""

from collections.abc import Mapping
from typing import NamedTuple

_SMALL_MODEL: Mapping[str, object] = {
  "model.encoder.variant": "",
  **{
    f"model.{part}.{name}": value
    for part in ("encoder", "decoder")
    for name, value in {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}.items()
  },
}
_SMALL_CODES = {"code_length": 4, "width": 16, "encoder_depth": 1, "decoder_depth": 1}
_SMALL_CODES |= {"num_heads": 2, "mlp_dim": 16, "dict_size": 8, "codeword_dim": 4}


class Case(NamedTuple):
  """One step to measure.

  Attributes:
    name: of `--case`.
    title: what tables call it.
    config: file and variant.
    phase: whose step it is.
    changes: settings of the config, by name.
    small: changes on top of these where nothing shall be measured.
    flags: of XLA, on trial.
  """

  name: str
  title: str
  config: str
  phase: str
  changes: Mapping[str, object]
  small: Mapping[str, object]
  flags: str = ""

  def overrides(self, small: bool) -> list[tuple[str, str]]:
    """As `rtune.config.load.load_config` takes them."""
    changes = {**self.changes, **(self.small if small else {})}
    return [(key, str(value)) for key, value in changes.items()]


def _data(source: str, **args: object) -> dict[str, object]:
  fn = f"rtune.benchmark.noise:{source}"
  return {f"data.{split}.{k}": v for split in ("train", "val") for k, v in _part(fn, args)}


def _part(fn: str, args: Mapping[str, object]) -> list[tuple[str, object]]:
  return [("fn", fn), ("args", dict(args))]


def _batch(size: int) -> dict[str, object]:
  return {f"{phase}.batch_size": size for phase in ("mle", "reward")}


_SMALL_BATCH = {**_batch(4), "data.eval_batch_size": 4, **_SMALL_MODEL}
_BOXES = {**_data("Boxes", size=640), **_batch(32), "task.args.image_size": 640}
_FEW_BOXES = {"task.args.image_size": 32, "task.args.max_boxes": 3, **_data("Boxes", size=32)}
_FEW_BOXES |= {**_SMALL_BATCH, "reward.num_samples": 2}
_WORDS = {**_data("Captions", size=224), **_batch(64), "task.args.image_size": 224}
_WORDS |= {"task.args.min_count": 1, "reward.num_samples": 8}
_FEW_WORDS = {"task.args.image_size": 32, "task.args.length": 8}
_FEW_WORDS |= {**_data("Captions", size=32, words=60), **_SMALL_BATCH, "reward.num_samples": 3}
_CODES = {**_data("Segments", size=512), **_batch(16), "model.cache_block": 256}
_FEW_CODES = {"task.args.image_size": 32, "task.args.codes": _SMALL_CODES}
_FEW_CODES |= {**_data("Segments", size=32), **_SMALL_BATCH, "task.args.max_segments": 5}

_DETECTION = "configs/detection_recall.py:paper"
_RECALL = "configs/detection_recall.py"
_CAPTIONS = "configs/captioning_cider.py:paper"
_PANOPTIC = "configs/panoptic_pq.py:paper"
_BOXES_TITLE = "detection, ViT-B/16 at 640 px, decoder 6 x 512, 600 tokens, 32 images"
_RECALL_TITLE = "detection_recall.py as it stands, 0.2 M parameters, 16 images"
_WORDS_TITLE = "captions, ViT-B/16 at 224 px, decoder 6 x 768, 32 tokens, 64 images"
_CODES_TITLE = "UViM-L, 512 px, decoder 24 x 1024, 256 codes, 16 images"


def _boxes(name: str, title: str, phase: str, **changes: object) -> Case:
  own = {key.replace("__", "."): value for key, value in changes.items()}
  return Case(name, f"{_BOXES_TITLE}, {title}", _DETECTION, phase, _BOXES | own, _FEW_BOXES)


# Decoding is hundreds of small kernels a token: does it help to launch its loop as a graph?
_GRAPHS = "S = 2, loops as graphs"
# Updates spend a quarter of their time between kernels: are their graphs written anew each time?
_SINGLY, _NO_GRAPHS = "kernels launched one by one", "--xla_gpu_enable_command_buffer="
# In order of what is wanted most: where time runs out the last are not measured.
CASES = (
  Case("recall-mle", _RECALL_TITLE, _RECALL, "mle", {}, _SMALL_MODEL),
  Case("recall-reward", f"{_RECALL_TITLE}, S = 6", _RECALL, "reward", {}, _SMALL_MODEL),
  _boxes("detection-reward-2", "S = 2", "reward", reward__num_samples=2),
  _boxes("detection-mle", "kept activations", "mle", model__remat=False),
  _boxes(
    "detection-mle-singly", f"kept activations, {_SINGLY}", "mle", model__remat=False
  )._replace(flags=_NO_GRAPHS),
  Case(
    "recall-mle-singly", f"{_RECALL_TITLE}, {_SINGLY}", _RECALL, "mle", {}, _SMALL_MODEL, _NO_GRAPHS
  ),
  _boxes("detection-reward-8", "S = 8", "reward", reward__num_samples=8),
  _boxes("detection-mle-remat", "remat", "mle", model__remat=True),
  Case("captions-reward", f"{_WORDS_TITLE}, S = 8", _CAPTIONS, "reward", _WORDS, _FEW_WORDS),
  Case("codes-mle", f"{_CODES_TITLE}, remat", _PANOPTIC, "mle", _CODES, _FEW_CODES),
  Case("codes-reward", f"{_CODES_TITLE}, S = 2", _PANOPTIC, "reward", _CODES, _FEW_CODES),
  _boxes("detection-reward-2-graphs", _GRAPHS, "reward", reward__num_samples=2)._replace(
    flags="--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL"
  ),
  Case("captions-mle", f"{_WORDS_TITLE}, remat", _CAPTIONS, "mle", _WORDS, _FEW_WORDS),
)
BY_NAME = {case.name: case for case in CASES}
