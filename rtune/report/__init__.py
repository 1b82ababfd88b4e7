"""What stands on the page of a run: the parts of `python -m rtune.report`."""
