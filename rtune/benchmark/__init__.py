"""The parts of rtune.benchmark: what is timed, floors, yardsticks."""
