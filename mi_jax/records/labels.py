"""The words that figures, tables and captions share: how trainings, noise rules and quantities are called.

It holds no colours and no numbers.
"""

NOISE_RULES = ("fixed", "trace", "scale_free")
"""The noise rules under which every claim is judged, where they were measured.

`fixed` is one noise variance; `trace` scales with the layer, in a run's default as it was before training; `scale_free`
is the trace rule on the very activations measured, so that a mere change of scale does not show.
"""
RULER_NAMES = {
    "fixed": "fixed noise rule",
    "trace": "trace noise rule",
    "scale_free": "scale-free noise rule",
    "layer": "layer-variance noise rule",
    "median": "median-distance noise rule",
}
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
INPUTS = ("clean", "adversarial")
"""The kinds of input that figures compare, in their order."""
INFORMATION = {"i_tx": "I(X;T)", "i_ty": "I(T;Y)"}
_TRAININGS = {"fast": "Fast AT", "gaussian": "Gaussian noise", "noise": "Noise"}


def name_of(training: str) -> str:
    """How a training is written in text: `nt` is NT, `trades` is TRADES.

    >>> name_of("trades"), name_of("gaussian")
    ('TRADES', 'Gaussian noise')
    """
    return _TRAININGS.get(training, training.upper())
