"""Errors that a user can mend: one message, no stack trace, one exit code each."""


class RtuneError(Exception):
  """An error with a message for the user. `main` prints it and exits with `exit_code`."""

  exit_code = 1


class UsageError(RtuneError):
  """Wrong flag, config key, value or workdir."""

  exit_code = 2


class DataError(RtuneError):
  """Something is wrong with annotation files, images or weights."""

  exit_code = 3


class RewardError(RtuneError):
  """The user's own reward raised or hung; the message holds their traceback."""

  exit_code = 1


class ProcessLost(RtuneError):
  """Another process of the run has died; the same command resumes it (EX_TEMPFAIL)."""

  exit_code = 75


class OutOfMemory(RtuneError):
  """A device or the host could not give the memory that a step needs."""

  exit_code = 1


class NumericError(RtuneError):
  """Loss or gradients stayed non-finite for several steps in a row."""

  exit_code = 4


class StorageError(RtuneError):
  """A checkpoint can be neither written nor read."""

  exit_code = 5


class Preempted(RtuneError):
  """The run was asked to stop and has saved its state; the same command resumes it.

  Exit code 75 (EX_TEMPFAIL) for a scheduler's signal, 130 for the user's Ctrl-C.
  """

  exit_code = 75

  def __init__(self, message: str, exit_code: int = 75):
    super().__init__(message)
    self.exit_code = exit_code
