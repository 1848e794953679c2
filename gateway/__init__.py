"""Portcullis, an auth gateway. This package imports nothing, so that `gateway._native` loads alone."""

__version__ = "0.1.0.dev0"
