"""What a config needs elsewhere: counted everywhere, compiled where a compiler is."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

from rtune.config.load import load_config
from rtune.errors import UsageError
from rtune.plan import __main__ as run
from rtune.plan import chips, memory, programs, table
from rtune.text.corpus import FIRST_WORD_ID

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECALL = str(ROOT / "configs" / "detection_recall.py")


@pytest.fixture(scope="module")
def paper():
  return programs.make_blueprint(load_config(f"{RECALL}:paper"), 80)


def test_topologies():
  assert chips.parse_topology("v5e:16x16").number == 256
  assert chips.parse_topology("v5p:4x4x4").number == 64
  assert chips.parse_topology("h100:8") == ("h100:8", chips.CHIPS["h100"], 8)
  for wrong in ("v9:2x2", "v5e", "v5e:0x2", "v5e:axb", "h100:"):
    with pytest.raises(UsageError, match=wrong.partition(":")[0]):
      chips.parse_topology(wrong)


def test_a_detector_without_its_data(paper):
  assert len(paper.task.classes) == 80
  assert paper.length == 600
  assert paper.model.decoder.vocab_size == 3 + 1001 + 80
  assert paper.config.model.dtype == "bfloat16"
  assert paper.example["image"].shape == (1280, 1280, 3)


@pytest.fixture
def no_data(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))


def without_data(name: str, *args: int) -> programs.Blueprint:
  return programs.make_blueprint(load_config(str(ROOT / "configs" / f"{name}.py:paper")), *args)


@pytest.mark.usefixtures("no_data")
def test_captions_without_their_data():
  for words in (300, 500):  # after the end and unknown words
    assert without_data("captioning_cider", 7, words).model.decoder.vocab_size == (
      FIRST_WORD_ID + words
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_data")
def test_coded_tasks_without_their_data():
  assert without_data("colorization_vivid", 7).length == 256
  panoptic = without_data("panoptic_pq", 9)
  assert panoptic.length == 256 and len(panoptic.task.classes) == 9


def test_the_paper_counted(paper):
  sizes = programs.sizes_of(paper, "reward", 256)
  assert (sizes.batch, sizes.samples, sizes.memory_tokens) == (1, 2, 6400)
  text = table.of_phase(paper, "reward", chips.parse_topology("h100:256"), None)
  assert "100000 steps" in text
  assert [line.split()[1] for line in text.splitlines()[2:4]] == ["sample", "update"]


def test_memory_grows_with_what_it_is_made_of(paper):
  sizes = programs.sizes_of(paper, "reward", 32)

  def of(optimizer="adafactor", **changes):
    return memory.update_memory(sizes, optimizer, **{"kernel": False, "remat": True, **changes})

  plain, remat = of(remat=False), of()
  assert remat.kept < plain.kept / 10
  parts = of(accumulate=8)
  assert parts.kept == pytest.approx(remat.kept / 8)
  assert parts.gradients == 2 * remat.gradients
  spread = of(shards=32)
  assert spread.state == pytest.approx(remat.state / 32)
  assert of("adam").state == 2 * remat.state


def test_a_kernel_of_attention_keeps_no_scores(paper):
  sizes = programs.sizes_of(paper, "reward", 32)
  assert memory.takes_kernel(sizes)  # heads of 64 numbers in bfloat16
  plain, fused = (
    memory.update_memory(sizes, "adafactor", remat=False, kernel=kernel).kept
    for kernel in (False, True)
  )
  batch, samples, length, patches = sizes.batch, sizes.samples, 600, 6400
  encoder = 12 * batch * 12 * patches**2 * 2  # layers, images, heads, scores in bfloat16
  decoder = 6 * batch * samples * 8 * (length**2 + length * patches) * (4 + 2)
  assert plain - fused == encoder + decoder


def test_memory_of_sampling_adds_up(paper):
  sizes = programs.sizes_of(paper, "reward", 32)
  more = sizes._replace(samples=sizes.samples + 1)
  caches = sizes.batch * 600 * 6 * 2 * 512 * 2  # tokens, layers, keys and values, width, bytes
  assert memory.sampling_memory(more) - memory.sampling_memory(sizes) == caches


def test_advice_names_a_setting_with_which_it_fits():
  changed = [("model.remat", "false"), ("shard_parameters", "false")]
  config = load_config(f"{RECALL}:paper", changed)
  blueprint = programs.make_blueprint(config, 80)
  small = chips.parse_topology("v5e:16x16")
  text = table.advice(blueprint, "mle", small, None, 0.95)
  assert "model.remat=true" in text
  better = programs.make_blueprint(load_config(f"{RECALL}:paper", changed[1:]), 80)
  assert table.advice(better, "mle", small, None, 0.95) == ""


def test_command_counts_for_gpus(capsys):
  assert run.main(["--config", f"{RECALL}:tiny", "--topology", "h100:2"]) == 0
  told = capsys.readouterr().out
  for text in ("mle: update", "reward: sample", "reward: update", "device-hours", "formulas"):
    assert text in told


def test_mistakes(capsys):
  config = ["--config", f"{RECALL}:tiny"]
  assert run.main([*config, "--topology", "abacus:3"]) == 2
  assert run.main([*config, "--topology", "h100:3"]) == 2
  assert "use a multiple of 3" in capsys.readouterr().err
  assert run.main([*config, "--topology", "h100:2", "--config.nothing=1"]) == 2
  assert run.main([*config, "--topology", "h100:2", "--verbose"]) == 2
  assert "--verbose" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_paper_compiles_for_a_pod_and_fits():
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("needs the compiler for TPUs: pip install 'rtune[tpu]'")
  command = [sys.executable, "-m", "rtune.plan", "--config", f"{RECALL}:paper"]
  done = subprocess.run(
    [*command, "--topology", "v5e:16x16"], capture_output=True, text=True, check=False, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr
  assert "does not fit" not in done.stdout
  assert "reward: update" in done.stdout
