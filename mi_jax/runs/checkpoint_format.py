"""The state of one seed's training as a checkpoint holds it: string keys only. Touches no disk."""

from typing import Any

import jax
import jax.numpy as jnp

from mi_jax.typing import Variables


def to_save(member: Any) -> dict[str, Any]:
    """String keys only, so that a restored state needs no example of its structure.

    `variables` are those to evaluate; where they are an average, `trained` are those that go on training.
    """
    optimizer = {
        jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(member["optimizer"])
    }
    saved = {"variables": member["variables"], "optimizer": optimizer, "totals": member["totals"]}
    if "average" in member:
        saved |= {"variables": member["average"], "trained": member["variables"]}
    return saved


def restored(like: Any, saved: dict[str, Any]) -> Any:
    """The inverse of `to_save`, in the structure of `like`."""
    optimizer = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(saved["optimizer"][jax.tree_util.keystr(path)]), like["optimizer"]
    )
    restored = {
        "variables": jax.device_put(whole(saved["variables"])),
        "optimizer": optimizer,
        "totals": jax.device_put(saved["totals"]),
    }
    if "average" in like:
        restored |= {"variables": jax.device_put(whole(saved["trained"])), "average": restored["variables"]}
    return restored


def whole(saved: dict[str, Any]) -> Variables:
    """The variables, with the empty dict that orbax leaves out of a network without batch statistics."""
    return {"batch_stats": {}, **saved}
