"""Features of a backbone that is not trained are computed once, and mean what they always meant."""

import dataclasses
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rtune import config as configs
from rtune.config.names import resolve
from rtune.data import loader
from rtune.data.views import Views
from rtune.errors import Preempted
from rtune.store import run_files, weights
from rtune.store.rows_file import RowsFile
from rtune.training import features, loop
from rtune.training.phases import phase_of
from rtune.training.setup import prepare
from rtune.training.stopping import StopRequest

pytestmark = pytest.mark.usefixtures("quick_compiles")

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES, VIEWS, BATCH = 10, 3, 8
FROZEN = (("encoder/backbone/.*", 0.0),)


def config_of(frozen: bool = True, **data) -> configs.Config:
  config = resolve(f"{ROOT / 'configs' / 'detection_recall.py'}:get_config")("tiny")
  config.task.args.update(image_size=32, flip=0.5)
  config.data.train.args.update(num=IMAGES, size=32)
  config.data.val.args.update(num=4, size=32)
  config.data.update(views=VIEWS, eval_batch_size=BATCH, threads=1, **data)
  config.model.encoder.update(backbone="alexnet", patch_size=8)
  for name, steps in {"mle": 5, "reward": 3}.items():
    phase = config[name]
    phase.update(steps=steps, batch_size=8)
    phase.optim.update(lr=1e-2, schedule="constant", warmup_steps=0)
    if frozen:
      phase.optim.lr_multipliers = FROZEN
  config.update(eval_every=0, tensorboard=False, report=False)
  return configs.parse(config)


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted((folder / features.FOLDER).glob("*.npy"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> pathlib.Path:
  """A finished run that has kept features. Read only."""
  folder = tmp_path_factory.mktemp("kept") / "run"
  loop.run(config_of(), str(folder))
  return folder


def test_training_on_features_is_training_on_images(kept, tmp_path):
  loop.run(dataclasses.replace(config_of(features_mb=0), phases=("mle",)), str(tmp_path / "run"))
  assert len(files_of(kept)) == 1 and not files_of(tmp_path / "run")
  setup = prepare(config_of())
  begun = jax.tree.map(np.asarray, phase_of("mle").start_from(setup, tmp_path))
  kept_end, other_end = (
    weights.load_weights(run_files.weights_path(folder, "mle"))
    for folder in (kept, tmp_path / "run")
  )
  # Half precision of features, through five steps of Adafactor at a high rate.
  assert distance(kept_end, other_end) < 0.01 * distance(kept_end, begun)


def distance(one, other) -> float:
  return float(optax.tree.norm(jax.tree.map(np.subtract, one, other)))


def test_a_row_is_what_the_backbone_says_of_its_view(kept):
  setup = prepare(config_of())
  params = weights.load_weights(run_files.weights_path(kept, "reward"))
  rows = np.load(files_of(kept)[0])
  assert len(rows) == IMAGES * VIEWS
  for index, view in ((0, 0), (3, 2), (9, 1)):
    rng = np.random.default_rng((setup.config.seed, index, view))
    image = setup.task.example(setup.train[index], rng)["image"][None]
    wanted = setup.policy.backbone.features(params, jnp.asarray(image))[0]
    np.testing.assert_allclose(rows[index * VIEWS + view], wanted, rtol=2e-3, atol=2e-3)
  assert not np.allclose(rows[0], rows[1])


def opened(config, folder, phase="reward", stop=None):
  """What a phase would train on, from the weights of imitation."""
  setup, phase = prepare(config), phase_of(phase)
  params = jax.tree.map(np.asarray, phase_of("mle").start_from(setup, folder))
  return features.views_of(setup, phase, params, folder, stop or StopRequest())


def test_nothing_is_kept_of_a_backbone_that_trains(tmp_path):
  views = opened(config_of(frozen=False), tmp_path)
  assert views.count == VIEWS and views.beside(0, 0) == {} and not files_of(tmp_path)


def test_features_that_take_too_much_room_are_not_kept(tmp_path, capsys):
  assert opened(config_of(features_mb=0), tmp_path).beside(0, 0) == {}
  assert "config.data.features_mb=0" in capsys.readouterr().err


def test_features_of_other_images_are_computed_again(tmp_path, capsys):
  opened(config_of(), tmp_path)
  (file,) = files_of(tmp_path)
  right = file.read_bytes()
  rows = np.load(file)
  np.save(file, rows[:, ::-1] + 1)
  opened(config_of(), tmp_path)
  assert "of other images" in capsys.readouterr().err
  assert file.read_bytes() == right


def test_models_of_other_sizes_share_features(tmp_path, capsys):
  opened(config_of(), tmp_path)
  files = files_of(tmp_path)
  config = config_of()
  sizes = dataclasses.replace(config.model.decoder, dropout=0.2, width=48)
  model = dataclasses.replace(config.model, decoder=sizes)
  capsys.readouterr()
  opened(dataclasses.replace(config, model=model), tmp_path)
  assert files_of(tmp_path) == files and "kept for later" not in capsys.readouterr().err
  encoder = dataclasses.replace(config.model.encoder, patch_size=16)
  model = dataclasses.replace(config.model, encoder=encoder)
  opened(dataclasses.replace(config, model=model), tmp_path)
  assert len(files_of(tmp_path)) == 2


def test_a_stop_keeps_what_is_computed(tmp_path):
  whole, parts, stop = tmp_path / "whole", tmp_path / "parts", StopRequest()
  opened(config_of(), whole)
  stop.signal = signal.SIGTERM
  for done in (8, 16, 24):
    with pytest.raises(Preempted, match=f"features of {done} of 30 views"):
      opened(config_of(), parts, stop=stop)
  opened(config_of(), parts)
  assert files_of(whole)[0].read_bytes() == files_of(parts)[0].read_bytes()


def test_each_epoch_shows_the_next_view_of_every_example():
  source = [{"image_id": index} for index in range(5)]
  views = Views(2, 7, lambda index, view: {"beside": np.array([index, view])})

  def example(raw, rng):
    return {"index": np.array(raw["image_id"]), "drawn": rng.random(2)}

  given = {"batch_size": 5, "seed": 0, "num_threads": 1, "prefetch": 1, "views": views}
  batches = loader.train_batches(source, example, **given)
  epochs = [next(batches) for _ in range(4)]
  batches.close()
  for epoch, batch in enumerate(epochs):
    assert sorted(batch["index"].tolist()) == [0, 1, 2, 3, 4]
    for index, drawn, beside in zip(*(batch[k] for k in ("index", "drawn", "beside")), strict=True):
      assert beside.tolist() == [index, epoch % 2]
      wanted = np.random.default_rng((7, int(index), epoch % 2)).random(2)
      np.testing.assert_array_equal(drawn, wanted)


def test_rows_of_another_array_are_none(tmp_path):
  path = tmp_path / "rows.npy"
  rows = np.arange(12, dtype=np.float16).reshape(4, 3)
  file = RowsFile(path, (4, 3), np.float16)
  assert file.done == 0
  file.write(0, rows[:2])
  assert file.done == 2
  with open(path, "ab") as cut_off:
    cut_off.write(b"1")  # a row that was not finished
  assert file.done == 2
  file.write(2, rows[2:])
  assert file.done == 4
  np.testing.assert_array_equal(np.load(path), rows)
  assert RowsFile(path, (4, 4), np.float16).done == 0
