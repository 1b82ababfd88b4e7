"""Where rewards have always taken `on_host` from; it lives in `rtune.rewards.mark`."""

from rtune.rewards.mark import on_host

__all__ = ["on_host"]
