"""What the servers of this package share: who is let in, and where they listen."""

from vosformer.web.guard import Guard
from vosformer.web.listen import host_names, listen

__all__ = ["Guard", "host_names", "listen"]
