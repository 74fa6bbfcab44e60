"""ShapeTex: synthetic 32 x 32 x 3 images with known shape, texture and colour, generated from a seed.

x = clip(1/2 + a_S (2 m_S - 1) + a_T w t_T + a_C u_C + sigma n, 0, 1). An L-infinity attack with eps >= a_T can erase
the texture, and likewise the shape, so the amplitudes determine which cue a robust classifier can use.

    config = ShapeTex(texture_amplitude=16 / 255)
    ds = dataset(config)                                    # train and test, uint8
    sets = test_sets(config)                                # redundant, conflict, factorial, ..._suppressed
    fields = scene(config, "conflict")                      # masks, textures, hues and noise
    images = compose(fields, shape_amplitude=0.1, texture_amplitude=0.05)   # float, at any amplitude
"""

from mi_jax.data.shapetex.config import COARSE_TEXTURES, COLOURS, SHAPES, TEXTURES, ShapeTex
from mi_jax.data.shapetex.scenes import Scene, compose, draw, hues
from mi_jax.data.shapetex.sets import dataset, factors, scene, split, test_sets

__all__ = [
    "COARSE_TEXTURES",
    "COLOURS",
    "SHAPES",
    "TEXTURES",
    "Scene",
    "ShapeTex",
    "compose",
    "dataset",
    "draw",
    "factors",
    "hues",
    "scene",
    "split",
    "test_sets",
]
