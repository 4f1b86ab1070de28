"""`python -m jammi_duck.cli` is `jammi-duck`."""

import sys

from jammi_duck.cli import main

sys.exit(main())
