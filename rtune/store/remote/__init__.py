"""Workdirs and weights that a URL names: gs://, s3:// and all else that fsspec knows."""
