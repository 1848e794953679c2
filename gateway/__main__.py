"""`python -m gateway` is `portcullis`."""

from gateway.cli import main

main()
