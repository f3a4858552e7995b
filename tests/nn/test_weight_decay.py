"""Which parameters are exempt from weight decay."""

from __future__ import annotations

import pytest

from brainage.nn import ERMoE, VisionTransformer, make_moe, no_weight_decay_parameters


@pytest.mark.parametrize("coupling", ["shared", "joint", "independent"])
def test_only_matrices_and_spectra_are_decayed(coupling):
    moe = {"num_experts": 2, "rank": 3, "coupling": coupling}
    model = VisionTransformer(5, 8, 2, 2, 8, moe_blocks=(1,), moe=moe)
    exempt = no_weight_decay_parameters(model)
    names = {name for name, _ in model.named_parameters()}
    assert exempt < names
    assert names - exempt == {
        *(f"blocks.{i}.attention.{name}.weight" for i in (0, 1) for name in ("query_key_value", "output")),
        "blocks.0.feed_forward.0.weight",
        "blocks.0.feed_forward.2.weight",
        "blocks.1.feed_forward.experts.hidden.first_spectrum_EC",
        "blocks.1.feed_forward.experts.hidden.second_spectrum_EC",
    }


def test_a_learned_temperature_is_not_decayed():
    layer = make_moe("cosine", 8, 4, 8)
    assert no_weight_decay_parameters(layer) == {"router.log_scale", "experts.bias_EH", "experts.bias_ED"}


def test_names_are_those_of_the_module_itself():
    layer = ERMoE(8, 2, 3, 8)
    assert "experts.reading.weight_MDC" in no_weight_decay_parameters(layer)
    assert no_weight_decay_parameters(layer.experts.reading) == {"weight_MDC"}
