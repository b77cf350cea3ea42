"""`python -m gpenvid`: the same as the `gpenvid` command."""

import sys

from gpenvid.cli import main

sys.exit(main())
