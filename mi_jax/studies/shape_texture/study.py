"""Shape or texture: which cue predictions follow, which cues the layers encode, and which an attacker can remove.

Needs ShapeTex, whose cues are known and whose diagnostic sets separate them.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.attacks import PGD, pgd
from mi_jax.batches import map_batches
from mi_jax.data import ShapeTex, Split
from mi_jax.information import LinearProbe
from mi_jax.measure.accuracy import attack_columns
from mi_jax.measure.information import activations
from mi_jax.measure.linear_probes import mean_and_error, probed, rescaled_gains
from mi_jax.parallel import mesh_of
from mi_jax.records.table import Record, information_record
from mi_jax.studies.registry import StudyInput, StudyResult
from mi_jax.studies.shape_texture import information, shape_bias
from mi_jax.studies.shape_texture.shape_bias import CLASSES, CUES, adversarial_examples_of, predictions_of
from mi_jax.typing import Images, Key

_PROBE_ATTACK_STEPS = 10
_PROBE_NOTE = "probe fitted on clean activations, its logits rescaled"


def measure(study_input: StudyInput) -> StudyResult:
    """All cue measures of one network on the default ShapeTex.

    The records and arrays of `shape_bias`, and on the factorial set, for every layer: information about shape, texture,
    colour and about shuffled shape labels (which must be 0 within error) by a probe, and about shape and texture by KDE
    bracket and Monte Carlo (these describe the given images: with few images per class they are above 0 for shuffled
    labels too, which are recorded with them); `cue_preference`. On the redundant set: information about the class,
    `i_t_label`. `i_t_shape_robust`, `i_t_texture_robust`: information by a probe of the logits under an attack on the
    probe itself. Adversarial examples for conflict and factorial images attack the network's own prediction, since the
    label favours one cue; all others attack the label.
    """
    config = ShapeTex()
    held = shape_bias.held_out_images(study_input, config)
    fitted = min(2 * held, config.n_test - held)
    sets = shape_bias.diagnostic_sets(config, held + fitted)
    found = shape_bias.measure_on(study_input, sets, held)
    return StudyResult([*found.records, *layers(study_input, sets, fitted)], found.arrays)


def layers(study_input: StudyInput, sets: Mapping[str, Split], fitted: int) -> list[Record]:
    """Information of every layer about the cues and the class; robust information of the logits.

    Args:
        study_input: the network.
        sets: `factorial` and `redundant`.
        fitted: how many of their first images the probes are fitted on; the others are held out.
    """
    factorial, redundant = sets["factorial"], sets["redundant"]
    images = factorial.to_float()
    shuffle_key, noise_key, attack_key = jax.random.split(study_input.key, 3)
    rows = np.asarray(jax.random.permutation(shuffle_key, len(factorial)))
    factors = {name: np.asarray(values) for name, values in factorial.factors.items()}
    factors["shuffled"] = factors["shape"][rows]
    first, last = {n: v[:fitted] for n, v in factors.items()}, {n: v[fitted:] for n, v in factors.items()}
    clean = activations(study_input.network, study_input.variables, images)
    held = images[fitted:]
    adversarial_images = adversarial_examples_of(study_input, held, predictions_of(study_input, held))
    attacked = activations(study_input.network, study_input.variables, adversarial_images)
    labelled = activations(study_input.network, study_input.variables, redundant.to_float())

    made_by = attack_columns(study_input.attack)
    real = {name: values for name, values in last.items() if name != "shuffled"}
    records = information.ceilings(real, image_set="factorial", inputs="clean")
    records += information.ceilings({"label": redundant.labels[fitted:]}, image_set="redundant", inputs="clean")
    for layer in study_input.network.layers:
        where = {"layer": layer, "image_set": "factorial"}
        t, a = information.as_array(clean[layer]), information.as_array(attacked[layer])
        found = information.probe_layer(
            t[:fitted], first, t[fitted:], last, num_classes=CLASSES, inputs="clean", **where
        )
        records += found.records
        cues = {name: probe for name, probe in found.probes.items() if name in CUES}
        records += information.transferred(cues, a, last, inputs="adversarial", note=_PROBE_NOTE, **made_by, **where)
        if cues:
            records.append(
                information.preference(
                    found.values["shape"], found.values["texture"], estimator="probe", inputs="clean", **where
                )
            )
        records += _mixture(t[fitted:], a, last, noise_key, made_by, where)
        label = {"label": redundant.labels}
        y = information.as_array(labelled[layer])
        records += information.probe_layer(
            y[:fitted], {"label": label["label"][:fitted]}, y[fitted:], {"label": label["label"][fitted:]},
            num_classes=CLASSES, inputs="clean", layer=layer, image_set="redundant",
        ).records  # fmt: skip
        if layer == study_input.network.layers[-1]:
            records += robust(study_input, layer, cues, held, last, attack_key)
    return records


def _mixture(t, attacked, factors, key, made_by, where) -> list[Record]:
    """Mixture estimates about the cues, from clean and from adversarial activations."""
    variance = information.own_noise_variance(t)
    if variance is None:
        reason = "the layer is constant, so the rule gives no noise variance"
        return [
            Record(quantity=f"i_t_{name}", value=None, ok=False, estimator="monte_carlo", note=reason, **where)
            for name in CUES
        ]
    options = {"noise_variance": variance, "noise_rule": "scale_free", "num_classes": CLASSES, "key": key}
    records = []
    # Shuffled labels show how much of the estimate comes from having few images per class.
    for rows, names, own in (
        (t, (*CUES, "shuffled"), {"inputs": "clean"}),
        (attacked, CUES, {"inputs": "adversarial", **made_by}),
    ):
        chosen = {name: factors[name] for name in names}
        records += information.mixture_records(rows, chosen, **own, **options, **where)
    return records


def robust(
    study_input: StudyInput,
    layer: str,
    probes: Mapping[str, LinearProbe],
    images: Images,
    factors: Mapping[str, np.ndarray],
    key: Key,
) -> list[Record]:
    """Information about each cue by its probe under an attack that knows network and probe.

    It must be 0 where the attacker can remove the cue, that is for a cue strength rho = amplitude / eps of at most 1.

    Args:
        study_input: the network, and the attack whose norm and radius are used.
        layer: layer of the probes.
        probes: by factor.
        images: in [0, 1], `[n h w c]`.
        factors: int `[n]` for each of the probes.
        key: for the random starts.
    """
    attack = dataclasses.replace(
        study_input.attack, steps=_PROBE_ATTACK_STEPS, step_size=study_input.attack.eps / 4 or 1.0, random_start=True,
        restarts=1, loss="ce", keep="best",
    )  # fmt: skip
    records = []
    for name, probe in probes.items():
        function = probed(study_input.network, layer)
        variables = function.variables(study_input.variables, probe)
        logits = map_batches(
            functools.partial(_attacked_logits, function, variables, key, attack), images, jnp.asarray(factors[name]),
            np.arange(len(images)), mesh=mesh_of(study_input.variables),
        )  # fmt: skip
        value, error = mean_and_error(rescaled_gains(np.asarray(logits), factors[name]))
        columns = {"image_set": "factorial", "inputs": "adversarial", **attack_columns(attack), "layer": layer}
        columns |= {"estimator": "probe", "n": len(images), "note": "the attack is on the probe"}
        records.append(information_record(f"i_t_{name}_robust", value, stderr=error, **columns))
    return records


def _attacked_logits(function, variables, key, attack: PGD, x, y, index) -> jax.Array:
    return pgd(function, variables, x, y, key, config=attack, index=index).logits
