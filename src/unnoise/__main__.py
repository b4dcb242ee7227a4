"""``python -m unnoise``: the command line."""

import sys

from unnoise.cli.main import main

sys.exit(main())
