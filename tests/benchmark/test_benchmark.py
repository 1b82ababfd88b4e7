"""What is timed is what training uses: the same functions and all their results."""

import json
import pathlib

import jax
import numpy as np
import pytest

from rtune import config as configs
from rtune.benchmark import __main__ as run
from rtune.benchmark import captions, decode, files, loop, rewards, segments, timing
from rtune.benchmark.row import Row, as_table
from rtune.config.load import load_config
from rtune.display.clock import Clock
from rtune.plan import counts
from rtune.training.setup import prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = f"{ROOT / 'configs' / 'detection_recall.py'}:tiny"
SMALL = decode.Setting(
  model=configs.Model(
    encoder=configs.Encoder(patch_size=8, width=16, depth=1, num_heads=2, mlp_dim=16),
    decoder=configs.Decoder(width=16, depth=2, num_heads=2, mlp_dim=16),
    cache_block=5,
  ),
  vocab_size=11,
  image_size=16,
  length=12,
  batch=2,
  samples=3,
)


def test_timed_samples_are_those_of_the_policy():
  ready = decode.make_ready(SMALL)
  calls = decode.samplers(ready)
  ours, plain = calls["ours"](), calls["plain"]()
  sample = jax.jit(ready.policy.sample, static_argnums=3)
  want = sample(ready.params, ready.images, jax.random.key(0), 3)
  np.testing.assert_array_equal(ours.actions, want.actions)
  np.testing.assert_array_equal(ours.log_prob, want.log_prob)
  np.testing.assert_array_equal(plain.actions, want.actions)
  np.testing.assert_allclose(plain.log_prob, want.log_prob, atol=1e-5)
  assert len(np.unique(want.actions)) > 5, "tokens must differ, or a wrong cache would not show"
  scored = ready.policy.score(ready.params, ready.images, ours.actions)
  np.testing.assert_allclose(ours.log_prob, scored.log_prob, atol=1e-5)


def test_standard_setting_is_what_the_default_config_decodes_with():
  assert decode.STANDARD.model.cache_block == configs.Model().cache_block
  assert decode.STANDARD.model.dtype == configs.Model().dtype


def test_rewards_of_the_yardstick_are_ours():
  calls = rewards.scorers()
  ours, by_threshold = calls["ours"](), calls["by threshold"]()
  assert ours.shape == (rewards.IMAGES, rewards.SAMPLES)
  assert np.std(ours) > 0.1
  np.testing.assert_allclose(ours, by_threshold, atol=1e-4)


def test_captions_are_worth_the_same_to_every_timed_scorer():
  device, array, plain = (np.ravel(call()) for call in captions.scorers().values())
  assert len(device) == captions.IMAGES * captions.SAMPLES
  assert np.std(plain) > 1
  np.testing.assert_allclose(array, plain, atol=1e-9)
  np.testing.assert_allclose(device, plain, atol=1e-5)


def test_timed_segments_are_judged():
  calls = segments.scorers()
  (record,) = calls["metric"]()
  assert len(record.iou) == segments.SEGMENTS and 0.5 < record.iou.min() <= record.iou.max() < 1
  rewards_BS = np.asarray(calls["reward"]())
  assert rewards_BS.shape == (segments.IMAGES, segments.SAMPLES)
  np.testing.assert_allclose(rewards_BS[:, 0], 1.0)  # the first sample is the truth
  assert rewards_BS[:, 1:].max() < 0.5


@pytest.mark.slow
def test_timed_imitation_learns(quick_compiles):
  made = loop.make_loop(prepare(load_config(TINY)))
  start = np.asarray(made.params["decoder"]["LogitsDense"]["kernel"])
  state, step = loop.imitation(made)
  with loop.train_batches(made.setup, made.setup.config.mle.batch_size) as batches:
    for _ in range(2):  # warmup: the first has a rate of zero
      state, metrics = step(state, loop.on_devices(made, next(batches)))
  assert int(state.step) == 2
  assert int(metrics["skipped"]) == 0
  assert np.abs(start - state.params["decoder"]["LogitsDense"]["kernel"]).max() > 0


@pytest.mark.slow
def test_timed_tuning_samples_and_scores(quick_compiles):
  made, clock = loop.make_loop(prepare(load_config(TINY))), Clock()
  state, step = loop.tuning(made, clock)
  with loop.train_batches(made.setup, made.setup.config.reward.batch_size) as batches:
    state, metrics = step(state, loop.on_devices(made, next(batches)))
  assert int(state.step) == 1
  assert set(clock.take()) == {"sample", "score"}
  # What was sampled is what is updated, and a model that knows nothing says a good many things.
  assert float(metrics["log_prob_gap"]) < 1e-4
  assert float(metrics["unique"]) > 0.5


def test_medians_and_ratios():
  wall, cpu = {"slow": [2.0, 6.0, 40.0], "fast": [1.0, 2.0, 4.0]}, {"slow": [8.0], "fast": [2.0]}
  timed = timing.Timed(wall, cpu)
  assert timed.median("slow") == 6.0
  assert timed.ratio("slow", "fast") == 3.0
  assert timed.cpu_ratio("slow", "fast") == 4.0


def test_calls_take_turns():
  order = []
  calls = {name: lambda name=name: order.append(name) for name in ("a", "b")}
  timed = timing.interleaved(calls, 3)
  assert order == ["a", "b"] * 4
  assert [len(timed.seconds[name]) for name in ("a", "b")] == [3, 3]
  assert [len(timed.cpu_seconds[name]) for name in ("a", "b")] == [3, 3]


def test_what_others_take_is_a_share():
  share = timing.Elsewhere().share()
  assert share is None or 0 <= share <= 1


def test_a_row_says_how_far_from_its_floor_it_is():
  row = Row("decode", "sampling", 2.0, 10, "token", counts.Floor(0.5, "memory"), "why")
  assert row.as_dict()["times_floor"] == 4.0
  assert row.as_dict()["rate"] == 5.0
  text = as_table([row, Row("data", "batches", 1.0, 3, "image")])
  assert "4.000" in text
  assert "memory" in text
  assert "3.000 image/s" in text


@pytest.mark.slow
def test_command(monkeypatch, capsys, quick_compiles):
  monkeypatch.setattr(decode, "STANDARD", SMALL)
  monkeypatch.setattr(decode, "SWEEPS", {"samples": (1, 2)})
  monkeypatch.setattr(rewards, "SLOTS", 5)
  monkeypatch.setattr(files, "SIZES", ((4, 9), (5, 10)))
  args = ["all", "--config", TINY, "--repeats", "2", "--sweep", "--json"]
  assert run.main(args) == 0
  told = json.loads(capsys.readouterr().out)
  assert told["machine"]["flops"] > 1e9
  parts = [figure["part"] for figure in told["figures"]]
  assert set(parts) == {*run.PARTS, "sweep"}
  by_part = {figure["figure"]: figure for figure in told["figures"]}
  assert all(figure["seconds"] > 0 for figure in told["figures"])
  assert by_part["reward step: sample"]["binds"] in ("compute", "memory")
  shares = [f["note"] for name, f in by_part.items() if name.startswith("reward step: ")]
  assert len(shares) == 4
  assert all(0 <= float(note.split()[0]) <= 100 for note in shares)
  assert "grows as samples^" in told["figures"][-1]["note"]


def test_mistakes(capsys):
  assert run.main(["nothing"]) == 2
  assert run.main(["train", "--config", "nowhere.py"]) == 2
  assert "nowhere.py: no such file" in capsys.readouterr().err
  assert run.main(["decode", "--repeats", "0"]) == 2
