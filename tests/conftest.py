"""One CPU thread a process: tests run beside each other, and threads that wait for one another spin."""

import torch

torch.set_num_threads(1)
