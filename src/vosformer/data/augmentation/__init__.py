"""Changing clips and pictures at random while training."""
