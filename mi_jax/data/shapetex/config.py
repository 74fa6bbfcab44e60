"""Configuration of ShapeTex and the names of its shapes, textures and colours."""

from dataclasses import dataclass
from typing import Literal, get_args

from mi_jax import checks

IMAGE_SIZE = 32
"""Height and width of every image in pixels."""
SHAPE_AREA = 230.0
"""Pixels that every shape covers at its nominal scale, so that mean luminance does not distinguish shapes."""

SHAPES = ("disk", "square", "triangle", "plus", "ring", "star", "crescent", "heart", "hourglass", "u")
TEXTURES = (
    "horizontal4",
    "vertical4",
    "diagonal4",
    "antidiagonal4",
    "horizontal8",
    "vertical8",
    "checker",
    "dots",
    "noise",
    "camouflage",
)
COARSE_TEXTURES = (
    "horizontal8",
    "vertical8",
    "diagonal8",
    "antidiagonal8",
    "horizontal16",
    "vertical16",
    "checker4",
    "dots16",
    "noise4",
    "camouflage16",
)
COLOURS = ("red", "orange", "lime", "green", "jade", "cyan", "azure", "blue", "purple", "rose")
NUM_CLASSES = 10

Regime = Literal["redundant", "shape", "texture", "noisy"]
Cue = Literal["shape", "texture"]
Placement = Literal["global", "foreground", "background"]
TextureScale = Literal["fine", "coarse"]
ColourRule = Literal["independent", "label"]


@dataclass(frozen=True)
class ShapeTex:
    """Which ShapeTex images to generate. Amplitudes and noise are in pixel units of [0, 1].

    Attributes:
        shape_amplitude: a_S, half the luminance difference between shape and background.
        texture_amplitude: a_T, the L-infinity norm of the texture. An attack with the usual eps = 8/255 can just erase
            the default texture, but not the default shape.
        colour_amplitude: a_C, the L-infinity norm of the hue; 0 leaves the images grey.
        noise: standard deviation of the Gaussian pixel noise.
        regime: which cues agree with the class in training: "redundant" (both), "shape" or "texture" (that cue; the
            other is independent of it), or "noisy" (`noisy_cue` with probability `cue_validity`, the other always).
        noisy_cue: the cue that is sometimes wrong in the "noisy" regime.
        cue_validity: the probability that it is correct; otherwise all other classes are equally likely.
        colour_rule: "independent" makes the hue independent of everything else; "label" makes it agree with the class
            in training and in the redundant test set (never in the conflict and factorial sets).
        placement: where the texture is: everywhere ("global"), on the shape ("foreground") or around it ("background").
        texture_scale: "fine", or "coarse" with no period below 8 pixels: textures as coarse as the shapes, which
            separate a preference for texture from one for high frequencies.
        n_train, n_test: numbers of images of the two splits; a larger split begins with a smaller one.
        seed: random seed of the images.

    Raises:
        InputError: when a value is of another kind or out of range.
    """

    shape_amplitude: float = 24 / 255
    texture_amplitude: float = 8 / 255
    colour_amplitude: float = 0.0
    noise: float = 2 / 255
    regime: Regime = "redundant"
    noisy_cue: Cue = "texture"
    cue_validity: float = 0.9
    colour_rule: ColourRule = "independent"
    placement: Placement = "global"
    texture_scale: TextureScale = "fine"
    n_train: int = 4000
    n_test: int = 2000
    seed: int = 0

    def __post_init__(self):
        for name in ("shape_amplitude", "texture_amplitude", "colour_amplitude", "noise"):
            checks.between(f"ShapeTex {name}", getattr(self, name), 0, 0.5, usual="8/255")
        checks.between("ShapeTex cue_validity", self.cue_validity, 0, 1, usual="0.9")
        for name in ("n_train", "n_test"):
            checks.count(f"ShapeTex {name}", getattr(self, name))
        checks.count("ShapeTex seed", self.seed, 0, 2**32 - 1)  # random keys hold 32 bits of it
        choices = {
            "regime": Regime,
            "noisy_cue": Cue,
            "colour_rule": ColourRule,
            "placement": Placement,
            "texture_scale": TextureScale,
        }
        for name, kind in choices.items():
            checks.one_of(f"ShapeTex {name}", getattr(self, name), get_args(kind))

    @property
    def texture_names(self) -> tuple[str, ...]:
        """The names of the ten textures in use."""
        return TEXTURES if self.texture_scale == "fine" else COARSE_TEXTURES

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the cue that defines the class: textures in the "texture" regime, else shapes."""
        return self.texture_names if self.label_cue == "texture" else SHAPES

    @property
    def label_cue(self) -> Cue:
        """The cue that always agrees with the class in training; shape where both do."""
        if self.regime == "texture" or (self.regime == "noisy" and self.noisy_cue == "shape"):
            return "texture"
        return "shape"
