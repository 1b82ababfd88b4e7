"""Measures by pass are those of each picture by itself."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from rtune.errors import DataError
from rtune.metrics.passes import by_pass
from rtune.metrics.pictures import restoring


def record(image_id):
  rng = np.random.default_rng(image_id)
  original = rng.random((16, 20, 1), np.float32)
  passes = (original[None] + 0.1 * rng.normal(size=(3, 16, 20, 1))).astype(np.float32)
  given = (original + 0.2 * rng.normal(size=original.shape)).astype(np.float32)
  kept = {"image_id": image_id, "original": original, "picture": passes[-1], "sigma": 25.0}
  return kept | {"passes": passes, "given": given}


def test_every_pass_is_measured_as_a_picture_of_its_own():
  metric, plain = by_pass(), restoring(measures=("PSNR", "SSIM", "UQI"))
  records = [record(number) for number in (3, 7)]
  state = metric.init()
  for one in records:
    state = metric.update(state, one, {"image_id": one["image_id"]})
  found = metric.compute(state)
  for name in ("given", "pass1", "pass2", "pass3"):
    other = plain.init()
    for one in records:
      picture = one["given"] if name == "given" else one["passes"][int(name[-1]) - 1]
      other = plain.update(other, {**one, "picture": picture}, {"image_id": one["image_id"]})
    for measure, value in plain.compute(other).items():
      assert found[f"{measure}_{name}"] == value
  assert set(found) == {
    f"{measure}_{name}"
    for measure in ("PSNR", "SSIM", "UQI")
    for name in ("given", "pass1", "pass2", "pass3")
  }
  bytes_of = [
    np.rint(np.clip(x, 0, 1) * 255) for x in (records[0]["original"], records[0]["given"])
  ]
  one = metric.compute(metric.update(metric.init(), records[0], {"image_id": 3}))
  assert one["PSNR_given"] == pytest.approx(peak_signal_noise_ratio(*bytes_of, data_range=255))


def test_predictions_without_passes_are_refused():
  one = record(3)
  del one["passes"]
  with pytest.raises(DataError, match="have no passes"):
    by_pass().update([], one, {"image_id": 3})
