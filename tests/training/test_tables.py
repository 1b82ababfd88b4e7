"""What a run tells in tables."""

from rtune.training.tables import results_table

RESULTS = {
  "mle": {"val/AR": 0.25, "val/boxes": 2.0, "val/reward": 0.5, "night/AR": 0.1},
  "seconds": {"mle": 3.0},
}


def test_the_headline_chooses_the_columns():
  assert results_table(RESULTS, ("AR",)).split()[:4] == ["phase", "AR", "reward", "seconds"]


def test_without_a_headline_all_numbers_are_shown_once():
  head = results_table(RESULTS, ()).split()[:5]
  assert head == ["phase", "AR", "boxes", "reward", "seconds"]
