"""What samples of a policy are worth: the parts of `python -m rtune.analyze`."""
