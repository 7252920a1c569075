"""The environment for processes that import the package and the tests' helpers as this one does."""

from __future__ import annotations

import os
import sys


def environment():
    """Without this interpreter's packages, which are not those of another one."""
    paths = [path for path in sys.path if path and not path.startswith((sys.prefix, sys.base_prefix))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
