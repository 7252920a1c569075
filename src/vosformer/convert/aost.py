"""AOST: our names are the official ones; the rules are AOT's."""

from vosformer.convert.aot import OPTIONAL, WRAPPED, from_official, from_pretrained, to_official

__all__ = ["OPTIONAL", "WRAPPED", "from_official", "from_pretrained", "to_official"]
