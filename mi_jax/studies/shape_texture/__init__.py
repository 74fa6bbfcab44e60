"""Shape or texture: which cue a network's predictions follow, and how much its layers carry about each.

Two studies: `shape_bias` needs only predictions and is quick; `shape_texture` adds the information of every layer.
"""

from mi_jax.studies.registry import Study, register
from mi_jax.studies.shape_texture import shape_bias, study
from mi_jax.studies.shape_texture.figure import BIAS_FIGURES, LAYER_FIGURES

SHAPE_BIAS = register(
    Study(
        "shape_bias",
        title="Shape bias of the predictions",
        measure=shape_bias.measure,
        figures=BIAS_FIGURES,
        unsupported_reason=shape_bias.unsupported_reason,
        part_of="shape_texture",
    ),
    aliases=("cue_answers",),
)
SHAPE_TEXTURE = register(
    Study(
        "shape_texture",
        title="Shape or texture: predictions, information of the layers, and robustness of the cues",
        measure=study.measure,
        figures=LAYER_FIGURES,
        unsupported_reason=shape_bias.unsupported_reason,
    ),
    aliases=("cue_conflict",),
)
