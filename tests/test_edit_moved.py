"""Edits of models in which diffusers' caches, offloading and casts have hooks of their own."""

from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig

from stepscope.hooks import Edit, Scale, edit
from stepscope.hooks.errors import UnsupportedPipelineError
from tests.cases import PROMPT
from tests.models import PIPELINES
from tests.small import FLUX_SMALL, SMALL, seeded

SITE = "double.01.attention.image"
OFF = Scale(0.0)


@pytest.mark.parametrize("cache", [PyramidAttentionBroadcastConfig, FirstBlockCacheConfig])
def test_caches_are_refused_by_name(cache):
    pipe = PIPELINES["flux"]()
    given: dict[str, Any] = {"current_timestep_callback": lambda: 0}
    is_pyramid = cache is PyramidAttentionBroadcastConfig
    pipe.transformer.enable_cache(cache(**(given if is_pyramid else {})))
    with pytest.raises(UnsupportedPipelineError, match=r"cannot edit FluxPipeline.*disable_cache"):
        with edit(pipe, Edit(SITE, OFF)):
            pytest.fail("entered")


@pytest.mark.parametrize("family", ["flux", "sd"])
@pytest.mark.parametrize("way", ["groups", "leaves", "accelerate", "cast"])
def test_a_model_that_is_moved_or_cast_is_edited_as_it_computes(family, way):
    pipe = PIPELINES[family]()
    model = pipe.transformer if family == "flux" else pipe.unet
    small = FLUX_SMALL | {"output_type": "np"} if family == "flux" else SMALL
    name = SITE if family == "flux" else "mid.00.00.attention.image"

    def made(*edits: Edit) -> np.ndarray:
        with edit(pipe, edits):
            return pipe(PROMPT, generator=seeded(0), **small).images

    cpu = torch.device("cpu")
    zero = Edit(name, OFF, steps=(1, 2))
    expected = made(zero) if way != "cast" else None
    if way == "groups":
        model.enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=1)
    elif way == "leaves":
        model.enable_group_offload(cpu, cpu, offload_type="leaf_level")
    elif way == "accelerate":
        accelerate.cpu_offload(model, cpu, offload_buffers=False)
    else:
        model.enable_layerwise_casting(torch.bfloat16, torch.float32)
    plain = made()
    np.testing.assert_array_equal(made(Edit("*", Scale(1.0))), plain)
    seen = made(zero)
    assert (seen != plain).any()
    if expected is not None:
        np.testing.assert_array_equal(seen, expected)
