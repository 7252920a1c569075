"""`python -m vosformer` is the `vosformer` command."""

import sys

from vosformer.cli import main

sys.exit(main())
