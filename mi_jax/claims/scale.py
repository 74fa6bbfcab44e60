"""How much of a difference in I(X;T) between two trainings is a difference in the scale of their activations (claim 4).

It works from recorded estimates and measures nothing itself.
"""

import pandas as pd

from mi_jax.claims.paired import by_layer, shares_noise
from mi_jax.records.labels import NOISE_RULE_NAMES
from mi_jax.records.run_records import RunRecords
from mi_jax.statistics.intervals import Interval, Table, t_interval


def scale_share(run_records: RunRecords, pair: tuple[str, str]) -> tuple[Interval, str]:
    """The share over seeds with its 95 % interval, and a remark: how it was formed, or why it was not.

    By rescaling where the study `geometry` has recorded `i_tx_upper_rescaled`, the second training's activations
    rescaled to the first's variance: under the fixed noise, or the trace noise rule where that saturates every layer; else
    by comparing a noise rule that both trainings share with one that follows each.
    """
    rows = {rule: _rows(run_records, "i_tx_upper", rule) for rule in ("fixed", "trace", "scale_free")}
    for rule in ("fixed", "trace"):
        rescaled, whole = _rows(run_records, "i_tx_upper_rescaled", rule), rows[rule]
        if not rescaled.empty:
            without = pd.concat([whole[whole["training"] == pair[0]], rescaled[rescaled["training"] == pair[1]]])
            found = _share(run_records, pair, whole, without, f"by rescaling, {NOISE_RULE_NAMES[rule]}", relative=False)
            if found[0].count:
                return found
    own = [rule for rule in ("scale_free", "trace") if not rows[rule].empty and not shares_noise(rows[rule], pair)]
    if not own:
        return t_interval([]), "needs rescaled estimates, or a noise rule that follows the scale of each training"
    found = (t_interval([]), "")
    for shared in ("fixed", "trace"):
        if shared not in own:
            remark = f"proxy: {NOISE_RULE_NAMES[shared]} against {NOISE_RULE_NAMES[own[0]]}"
            found = _share(run_records, pair, rows[shared], rows[own[0]], remark, relative=True)
            if found[0].count:
                break
    return found


def _rows(run_records: RunRecords, quantity: str, rule: str) -> Table:
    return run_records.select(quantity=quantity, noise_rule=rule, inputs="clean", estimator="kde", subset=None)


def _share(
    run_records: RunRecords, pair: tuple[str, str], whole: Table, without: Table, remark: str, *, relative: bool
) -> tuple[Interval, str]:
    """sum|D - R| / (sum|D - R| + sum|R|) per seed: D from `whole`, R from the rows `without` a difference in scale."""
    found = by_layer(whole, pair), by_layer(without, pair)
    a, b = (part.values for part in found)
    layers = [layer for layer in run_records.layers if all(len(t) and layer in t[pair[0]].columns for t in (a, b))]
    if not layers:
        saturated = any(part.saturated for part in found)
        reason = "every layer is saturated" if saturated else "not measured in this run for both trainings"
        return t_interval([]), reason
    seeds = a.index.intersection(b.index)
    (first, second), (first_r, second_r) = [[t.loc[seeds, name][layers] for name in pair] for t in (a, b)]
    difference, rest = second - first, second_r - first_r
    if relative:
        difference, rest = 2 * difference / (first + second), 2 * rest / (first_r + second_r)
    scale = (difference - rest).abs().sum(axis=1)
    total = scale + rest.abs().sum(axis=1)
    mean, low, high, count = t_interval((scale / total.where(total > 0)).to_numpy())
    remark += f"; {len(layers)} of {len(run_records.layers)} layers"
    return Interval(mean, max(low, 0.0), min(high, 1.0), count), remark
