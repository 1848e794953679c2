"""`python -m gateway.config [PAGE]` brings the tables of `docs/configuration.md` up to date."""

import sys
from pathlib import Path

from gateway.config.reference import write_page

write_page(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/configuration.md"))
