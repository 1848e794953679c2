"""The compiled hot path: its typed face. The sources and their laws are in `/_native/README.md`."""
