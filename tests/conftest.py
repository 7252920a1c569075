"""What all tests share: one CPU thread a process, and helpers that programs started by tests find, too."""

import os
from pathlib import Path

import torch

# Tests run beside each other, and threads that wait for one another spin.
torch.set_num_threads(1)

_FOLDERS = [str(path) for path in sorted(Path(__file__).parent.iterdir()) if path.is_dir() and path.name != "fixtures"]
os.environ["PYTHONPATH"] = os.pathsep.join([*_FOLDERS, os.environ.get("PYTHONPATH", "")])
