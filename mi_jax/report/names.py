"""The words that figures, tables and captions share: how trainings, rulers and quantities are called.

It holds no colours and no numbers.
"""

RULERS = ("fixed", "trace")
"""The noise rules under which every claim is judged: a fixed noise variance, and one that scales with the layer."""
RULER_NAMES = {
    "fixed": "fixed ruler",
    "trace": "scale-free ruler (trace)",
    "layer": "layer-variance ruler",
    "median": "median-distance ruler",
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
