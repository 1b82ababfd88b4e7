"""An exported file answers as `predict` does, for any batch size and without rtune."""

import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from rtune.config.names import resolve
from rtune.errors import UsageError
from rtune.export import __main__ as command
from rtune.export import formats, write
from rtune.export.program import program_of, sidecar_of
from rtune.inference.model import load
from rtune.tasks.task import view

ANSWERS = pathlib.Path(__file__).with_name("answers.py")
random_model, images_for, canvases, assert_same, SIZE = (
  resolve(f"{ANSWERS}:{name}")
  for name in ("random_model", "images_for", "canvases", "assert_same", "SIZE")
)
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in (
  *("captioning_cider", "colorization_vivid", "panoptic_pq", "superres_ssim"),
  *("denoising_ssim", "restoration_recursive", "detection_places", "detection_map"),
)]  # fmt: skip


@pytest.mark.parametrize("name", ["detection_recall", "segmentation_miou", *SLOW])
def test_answers_are_those_of_predict(name):
  model = random_model(name)
  own = view(model.run.task).own_size
  program = program_of(model, SIZE if own else None)
  exported = jax.export.deserialize(bytearray(formats.stablehlo(program)))
  assert exported.platforms == formats.PLATFORMS
  images = images_for(model, 50 if name == "detection_recall" else 4)
  batch = canvases(model, images)
  assert {batch.shape[1:]} == {program.image.shape} and batch.dtype == program.image.dtype
  answers = model.predict(images)
  found = {name: np.asarray(x) for name, x in exported.call(batch).items()}
  assert_same(found, answers)
  one = {name: np.asarray(x) for name, x in exported.call(batch[:1]).items()}
  assert_same(one, answers[:1])
  # These answers are not all alike, so something was compared.
  assert any(len(np.unique(values)) > 1 for values in found.values())
  record = sidecar_of(model, program, view(model.run.task).served)
  assert list(record["outputs"]) == list(found) and record["read"]
  assert json.loads(json.dumps(record)) == record


def test_the_sidecar_says_how_to_feed_and_read_it(boxes_run, tmp_path):
  write.write(boxes_run, tmp_path)
  record = json.loads((tmp_path / write.SIDECAR).read_text())
  assert record["input"]["shape"] == ["batch", 48, 48, 3] and record["input"]["resize"] == "fit"
  assert len(record["classes"]) == 6 and record["format"] == "stablehlo"
  assert set(record["outputs"]) == {"boxes", "labels", "present", "scores"}


def test_what_jax_writes_files_with_is_named(boxes_run, tmp_path, capsys, monkeypatch):
  there = importlib.util.find_spec
  hidden = lambda name, *more: None if name == "flatbuffers" else there(name, *more)  # noqa: E731
  monkeypatch.setattr(importlib.util, "find_spec", hidden)
  assert command.main(["--workdir", str(boxes_run), "--out", str(tmp_path / "exported")]) == 2
  assert "pip install 'rtune[export]'" in capsys.readouterr().err


def test_a_size_that_is_none_is_named(capsys):
  assert command.main(["--workdir", "runs/mine", "--out", "out", "--size", "3,x"]) == 2
  assert "'3,x' is not HEIGHT,WIDTH" in capsys.readouterr().err


def test_sizes_are_for_tasks_that_take_images_as_they_are(boxes_run, tmp_path, capsys):
  flags = ["--workdir", str(boxes_run), "--out", str(tmp_path), "--size", "32,48"]
  assert command.main(flags) == 2
  assert "scales every image to (48, 48)" in capsys.readouterr().err
  assert command.main([*flags[:-1], "32"]) == 2
  assert "--size" in capsys.readouterr().err


def test_what_reads_more_than_pixels_is_refused(boxes_run, monkeypatch):
  model = load(boxes_run)
  task = model.run.task
  decode = type(task).decode

  def reads_content(self, frozen, actions, batch, scored=None):
    found = decode(self, frozen, actions, batch, scored)
    return found._replace(boxes=found.boxes * batch["content"][:, None, None, 2:3])

  monkeypatch.setattr(type(task), "decode", reads_content)
  with pytest.raises(UsageError, match="depend on content"):
    program_of(model)
