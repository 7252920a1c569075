"""What every registered variant must do, at tiny size: the checks of `vosformer.testing`, to which a name alone holds it."""

from __future__ import annotations

import pytest

from vosformer.registry import Variant, build_from, register, variants
from vosformer.testing import CHECKS, check_system, every_layer_is_called

NAMES = [entry.name for entry in variants()]

# Weights that are used without a call of their layer: the first convolutions of the other depths of AOST, and a projection that
# JointFormer multiplies into values that it meets with one token only (`nn.joint.sigmoid_attention`).
NOT_CALLED = (r"decoder\.conv_in\.[01]\.", r"enhance_blocks\.\d+\.attn\.proj$")


@pytest.mark.parametrize("check", [check for check in CHECKS if check is not every_layer_is_called])
@pytest.mark.parametrize("name", NAMES)
def test_conformance(name, check):
    check(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_called(name):
    every_layer_is_called(name, NOT_CALLED)


def test_a_system_that_breaks_the_contract_is_told_how():
    from functools import partial

    from vosformer.models.deaot import DeAOT, DeAOTConfig

    class Forgetful(DeAOT):
        """Says that it knows the frame's masks, and gives random ones."""

        def read(self, features, memory, **options):
            reading = super().read(features, memory, **options)
            return reading._replace(logits=reading.logits[..., :-1, :] * float("nan"))

    register(Variant("forgetful", "deaot", partial(build_from, Forgetful, DeAOTConfig(), {}), "wrong on purpose"))
    with pytest.raises(AssertionError, match="ids_are_the_users"):
        check_system("forgetful")
