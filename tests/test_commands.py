"""All commands behind one name, what each says of itself, and what the doctor finds."""

import contextlib
import pathlib
import resource
import shutil
import subprocess
import sys

import pytest

from rtune import __main__ as cli
from rtune import completion, doctor
from rtune.store import run_files


def test_help_lists_every_command(capsys):
  assert cli.main(["--help"]) == 0 and cli.main([]) == 0
  shown = capsys.readouterr().out
  assert all(f"  {name} " in shown for name in cli.COMMANDS)


def test_help_imports_nothing_slow():
  code = "import sys, rtune.__main__ as m; m.main(['--help']); sys.exit('jax' in sys.modules)"
  begun = _cpu_of_children()
  done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True)
  assert done.returncode == 0 and _cpu_of_children() - begun < 1
  assert b"numpy" not in done.stderr


def _cpu_of_children() -> float:
  return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def test_a_typo_names_what_is_near(capsys):
  assert cli.main(["evalute"]) == 2
  assert "did you mean evaluate?" in capsys.readouterr().err
  assert cli.main(["xyz"]) == 2
  assert "there are train, evaluate" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "completion"])
def test_help_of_each_command_shows_an_example(name, capsys):
  module = cli.COMMANDS[name][0]
  flags = completion.flags_of(module)
  assert {"--workdir", "--config", "--annotations", "--trend", "--json"} & {*flags}
  with pytest.raises(SystemExit) if name != "train" else contextlib.nullcontext():
    completion.module_of(module).main(["--help"])
  assert "example: rtune" in capsys.readouterr().out


def test_a_command_is_its_module():
  flags = ("evaluate", "--workdir=nowhere", "--images=x")
  done = subprocess.run([sys.executable, "-m", "rtune", *flags], capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr == "error: --images goes with --annotations\n"


def complete(*words: str) -> list[str]:
  """What bash offers for the last word."""
  lines = completion.script("bash") + (
    f"COMP_WORDS=({' '.join(words) or chr(39) * 2}); COMP_CWORD={len(words) - 1}; _rtune; "
    'echo "${COMPREPLY[@]}"'
  )
  done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
  return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_completion():
  assert complete("rtune", "e") == ["evaluate", "export"]
  assert complete("rtune", "ev") == ["evaluate"]
  assert complete("rtune", "evaluate", "--im") == ["--images"]
  assert complete("rtune", "completion", "z") == ["zsh"]
  assert completion.script("zsh").endswith(completion.script("bash"))


def test_doctor_finds_nothing_wrong_with_a_whole_run(tiny_run, capsys):
  assert doctor.main([f"--workdir={tiny_run}"]) == 0
  shown = capsys.readouterr().out
  assert "mle, reward" in shown and "devices" in shown
  assert "mle_best_" in shown and "reward_best_" in shown
  assert "10, 20, 25, 30" in shown


def test_doctor_names_what_is_damaged(tiny_run, tmp_path, capsys):
  folder = tmp_path / "run"
  shutil.copytree(tiny_run, folder)
  (folder / run_files.RESULTS).write_text("[")
  largest = max((folder / "checkpoints" / "20").rglob("*"), key=lambda path: path.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:-1])
  (folder / "checkpoints" / "7.corrupt").mkdir()
  best = next((folder / "weights").glob("reward_best_*"))
  best.write_bytes(best.read_bytes()[:-1])
  assert doctor.main([f"--workdir={folder}"]) == 5
  shown = capsys.readouterr().err
  assert f"{folder / run_files.RESULTS} is damaged" in shown
  assert f"{pathlib.Path(folder) / 'checkpoints' / '20'}: " in shown and "bytes, not" in shown
  assert "7.corrupt was found damaged" in shown
  assert f"{best}: " in shown
  assert doctor.main([f"--workdir={tmp_path / 'none'}"]) == 2


def test_doctor_names_what_an_extra_would_bring():
  rows = dict(doctor.packages())
  assert rows["Python"] == sys.version.split()[0] and "jax" in rows
  assert not any("MISSING" in version for version in rows.values())
