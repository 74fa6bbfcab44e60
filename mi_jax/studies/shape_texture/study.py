"""Shape or texture: which cue a network's answers follow, which its layers keep, and which an attacker leaves.

Only for ShapeTex, whose cues are known and whose diagnostic sets take them apart. It trains nothing.
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
from mi_jax.measure.accuracy import describe
from mi_jax.measure.information import activations
from mi_jax.measure.linear_probes import mean_and_error, probed, rescaled_gains
from mi_jax.records.table import Record, information_record
from mi_jax.studies.registry import Study, StudyInput, StudyResult, register
from mi_jax.studies.shape_texture import behaviour, information
from mi_jax.studies.shape_texture.behaviour import CLASSES, adversarial_examples_of, answers_of, images_of
from mi_jax.studies.shape_texture.information import CUES
from mi_jax.typing import Images, Key

_PROBE_ATTACK_STEPS = 10
_PROBE_NOTE = "probe fitted on clean activations, its logits rescaled"


def cue_conflict(study_input: StudyInput) -> StudyResult:
    """All cue measures of one network on the default ShapeTex.

    On conflict images: `shape_bias` with interval and coverage, clean and adversarial (`cue_choices`). On images
    without one cue: accuracies and `suppression_gap`. On the factorial set, every layer: information about shape,
    texture, colour and about the shape's shuffled labels (which must be 0 within error) by a probe, and about shape and
    texture by KDE bracket and Monte Carlo (those describe the images at hand: with few images a class they are above 0
    for shuffled labels too, which is recorded beside them); `cue_preference`. On the redundant set: information about
    the class, `i_t_label`. `i_t_shape_robust`, `i_t_texture_robust`: what a probe of the logits tells while it is
    itself attacked. The delta oracle (`cue_delta`). Adversarial examples of the conflict and factorial images lead away from the
    network's own answer, as their label would take one cue's side; all others away from the label.

    Arrays: `answers` and `answers_adversarial` on the conflict images, int `[n]`, with `shape` and `texture`.
    """
    config = ShapeTex()
    held = behaviour.held_out_images(study_input, config)
    fitted = min(2 * held, config.n_test - held)
    sets = behaviour.diagnostic_sets(config, held + fitted)
    found = behaviour.behaviour(study_input, sets, held)
    return StudyResult([*found.records, *layers(study_input, sets, fitted)], found.arrays)


def layers(study_input: StudyInput, sets: Mapping[str, Split], fitted: int) -> list[Record]:
    """Information of every layer about the cues and the class; robust information of the logits.

    Args:
        subject: the network.
        sets: `factorial` and `redundant`.
        fitted: how many of their first images the probes are fitted on; the others are held out.
    """
    factorial, redundant = sets["factorial"], sets["redundant"]
    images = images_of(factorial)
    shuffle_key, noise_key, attack_key = jax.random.split(study_input.key, 3)
    rows = np.asarray(jax.random.permutation(shuffle_key, len(factorial)))
    factors = {name: np.asarray(values) for name, values in factorial.factors.items()}
    factors["shuffled"] = factors["shape"][rows]
    first, last = {n: v[:fitted] for n, v in factors.items()}, {n: v[fitted:] for n, v in factors.items()}
    clean = activations(study_input.network, study_input.variables, images)
    held = images[fitted:]
    adversarial_images = adversarial_examples_of(study_input, held, answers_of(study_input, held))
    attacked = activations(study_input.network, study_input.variables, adversarial_images)
    labelled = activations(study_input.network, study_input.variables, images_of(redundant))

    real = {name: values for name, values in last.items() if name != "shuffled"}
    records = information.ceilings(real, subset="factorial", inputs="clean")
    records += information.ceilings({"label": redundant.labels[fitted:]}, subset="redundant", inputs="clean")
    for layer in study_input.network.layers:
        where = {"layer": layer, "subset": "factorial"}
        t, a = information.as_array(clean[layer]), information.as_array(attacked[layer])
        found = information.probe_layer(
            t[:fitted], first, t[fitted:], last, num_classes=CLASSES, inputs="clean", **where
        )
        records += found.records
        cues = {name: probe for name, probe in found.probes.items() if name in CUES}
        records += information.transferred(cues, a, last, inputs="adversarial", note=_PROBE_NOTE, **where)
        if cues:
            records.append(
                information.preference(
                    found.values["shape"], found.values["texture"], estimator="probe", inputs="clean", **where
                )
            )
        records += _mixture(t[fitted:], a, last, noise_key, where)
        label = {"label": redundant.labels}
        y = information.as_array(labelled[layer])
        records += information.probe_layer(
            y[:fitted], {"label": label["label"][:fitted]}, y[fitted:], {"label": label["label"][fitted:]},
            num_classes=CLASSES, inputs="clean", layer=layer, subset="redundant",
        ).records  # fmt: skip
        if layer == study_input.network.layers[-1]:
            records += robust(study_input, layer, cues, held, last, attack_key)
    return records


def _mixture(t, adversarial_images, factors, key, where) -> list[Record]:
    variance = information.own_noise_variance(t)
    if variance is None:
        reason = "the layer is constant, so the rule gives no noise variance"
        return [
            Record(quantity=f"i_t_{name}", value=None, ok=False, estimator="monte_carlo", note=reason, **where)
            for name in CUES
        ]
    options = {"noise_variance": variance, "noise_rule": "scale_free", "num_classes": CLASSES, "key": key}
    records = []
    # Shuffled labels show what the estimate owes to there being few images a class.
    for inputs, rows, names in (("clean", t, (*CUES, "shuffled")), ("adversarial", adversarial_images, CUES)):
        chosen = {name: factors[name] for name in names}
        records += information.mixture_records(rows, chosen, inputs=inputs, **options, **where)
    return records


def robust(
    study_input: StudyInput,
    layer: str,
    probes: Mapping[str, LinearProbe],
    images: Images,
    factors: Mapping[str, np.ndarray],
    key: Key,
) -> list[Record]:
    """What the probe of each cue tells while an attacker with full knowledge of network and probe misleads it.

    0 is forced where the attacker can erase the cue, that is for a margin rho = amplitude / eps of at most 1.

    Args:
        subject: the network; norm and radius of its attack are the attacker's.
        layer: which the probes read.
        probes: by factor.
        images: in [0, 1], `[n h w c]`.
        factors: int `[n]` for each of the probes.
        key: of the random starts.
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
            functools.partial(_attacked_logits, function, variables, key, attack), images, jnp.asarray(factors[name])
        )
        value, error = mean_and_error(rescaled_gains(np.asarray(logits), factors[name]))
        columns = {"layer": layer, "subset": "factorial", "inputs": "adversarial", "estimator": "probe"}
        note = f"attack on the probe: {describe(attack)}"
        records.append(
            information_record(f"i_t_{name}_robust", value, stderr=error, n=len(images), note=note, **columns)
        )
    return records


def _attacked_logits(function, variables, key, attack: PGD, x, y) -> jax.Array:
    return pgd(function, variables, x, y, key, config=attack).logits


STUDY = register(
    Study(
        name="cue_conflict",
        title="Shape or texture: what the answers follow, what the layers keep, what an attacker leaves",
        run=cue_conflict,
        unsupported_reason=behaviour.unsupported_reason,
    )
)
