"""The ten shapes of ShapeTex as antialiased masks of equal area.

Every shape is a polygon, united with up to two disks, minus a third disk. One compiled formula over tables of signed
distances therefore renders any mixture of shapes.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_jax.data.shapetex.config import IMAGE_SIZE, NUM_CLASSES, SHAPE_AREA, SHAPES

MAX_VERTICES = 12
NOTHING = -1e3  # the radius of an absent disk
HEART_LOBE = math.sqrt(0.5)  # half a side of the heart's diamond, whose two upper sides carry half disks

Length = int | float
Polygon = list[tuple[Length, Length]]
Disk = tuple[Length, Length, Length]


def _regular(points: int, *, inner: float = 1.0) -> Polygon:
    """A regular polygon with its first vertex upwards, or a star where `inner` < 1 is the radius of its notches."""
    count = points if inner == 1.0 else 2 * points
    angles = -math.pi / 2 + 2 * math.pi * np.arange(count) / count
    radii = np.where(np.arange(count) % (count // points) == 0, 1.0, inner)
    return list(zip(radii * np.cos(angles), radii * np.sin(angles), strict=True))


def _outlines() -> dict[str, tuple[Polygon, list[Disk], Disk]]:
    """Polygon, united disks and subtracted disk of each shape in arbitrary units; y points down."""
    square: Polygon = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    arm = 1 / 3
    plus: Polygon = [
        (-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm),
        (arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm),
    ]  # fmt: skip
    hourglass: Polygon = [(-1, -1), (1, -1), (0.15, 0), (1, 1), (-1, 1), (-0.15, 0)]
    wall = 0.55
    u: Polygon = [(-1, -1), (-1 + wall, -1), (-1 + wall, 1 - wall), (1 - wall, 1 - wall), (1 - wall, -1), (1, -1),
                  (1, 1), (-1, 1)]  # fmt: skip
    diamond: Polygon = [(0, -1), (1, 0), (0, 1), (-1, 0)]
    none: Disk = (0.0, 0.0, NOTHING)
    return {
        "disk": ([], [(0, 0, 1)], none),
        "square": (square, [], none),
        "triangle": (_regular(3), [], none),
        "plus": (plus, [], none),
        "ring": ([], [(0, 0, 1)], (0, 0, 0.5)),
        "star": (_regular(5, inner=0.5), [], none),
        "crescent": ([], [(0, 0, 1)], (0.5, 0, 0.7)),
        "heart": (diamond, [(-0.5, -0.5, HEART_LOBE), (0.5, -0.5, HEART_LOBE)], none),
        "hourglass": (hourglass, [], none),
        "u": (u, [], none),
    }


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Vertices [shape vertex 2] and disks [shape 3 (x y radius)]; a short polygon repeats its last vertex."""
    vertices = np.full((NUM_CLASSES, MAX_VERTICES, 2), -NOTHING)
    disks = np.tile([0.0, 0.0, NOTHING], (NUM_CLASSES, 3, 1))
    for index, name in enumerate(SHAPES):
        polygon, united, subtracted = _outlines()[name]
        if polygon:
            vertices[index] = polygon + [polygon[-1]] * (MAX_VERTICES - len(polygon))
        for slot, disk in enumerate(united):
            disks[index, slot] = disk
        disks[index, 2] = subtracted
    return vertices.astype(np.float32), disks.astype(np.float32)


VERTICES, DISKS = _tables()


def _segment(radius: float, height: float) -> tuple[float, float]:
    """Area and first moment (about the centre) of the part of a disk beyond a chord at signed distance `height`."""
    half_chord = math.sqrt(radius**2 - height**2)
    return radius**2 * math.acos(height / radius) - height * half_chord, 2 / 3 * half_chord**3


def _polygon_moments(polygon: Polygon) -> tuple[float, float, float]:
    """Area and first moments of a polygon by the shoelace formula."""
    x, y = np.array(polygon).T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    moment_x = np.sum((x + np.roll(x, -1)) * cross) / 6
    moment_y = np.sum((y + np.roll(y, -1)) * cross) / 6
    return float(np.sum(cross) / 2), float(moment_x), float(moment_y)


def _moments(name: str) -> tuple[float, float, float]:
    """Area and first moments (x, y) of a shape in its own units, in closed form."""
    polygon, _, (centre, _, radius) = _outlines()[name]
    if name == "disk":
        return math.pi, 0.0, 0.0
    if name == "ring":
        return math.pi * (1 - radius**2), 0.0, 0.0
    if name == "crescent":  # a unit disk minus its intersection with another disk: two segments on one chord
        chord = (1 - radius**2 + centre**2) / (2 * centre)
        near_area, near_moment = _segment(1.0, chord)
        far_area, far_moment = _segment(radius, centre - chord)
        return math.pi - near_area - far_area, -(near_moment + centre * far_area - far_moment), 0.0
    area, moment_x, moment_y = _polygon_moments(polygon)
    if name == "heart":  # two half disks on the upper sides
        half_disk = math.pi * HEART_LOBE**2 / 2
        moment_y -= 2 * (half_disk * 0.5 + 2 / 3 * HEART_LOBE**3 * math.sqrt(0.5))
        area += 2 * half_disk
    return area, moment_x, moment_y


def _frames() -> np.ndarray:
    """Centroid (x, y) of each shape in its own units, and the pixels per unit at area `SHAPE_AREA`: [shape 3]."""
    rows = []
    for name in SHAPES:
        area, moment_x, moment_y = _moments(name)
        rows.append((moment_x / area, moment_y / area, math.sqrt(SHAPE_AREA / area)))
    return np.array(rows, np.float32)


FRAMES = _frames()


def signed_distance(x: Float[Array, "h w"], y: Float[Array, "h w"], shape: Int[Array, ""]) -> Float[Array, "h w"]:
    """Signed distance of points to the outline of a shape, all in the shape's own units, negative inside.

    Exact near every edge, where antialiasing needs it; deep inside a union or a difference it is a bound.
    """
    vertices, disks = jnp.asarray(VERTICES)[shape], jnp.asarray(DISKS)[shape]
    distance2 = jnp.full_like(x, jnp.inf)
    inside = jnp.zeros(x.shape, bool)
    for index in range(MAX_VERTICES):  # unrolled: one fused elementwise pass, no [edges, pixels] intermediate
        start, end = vertices[index], vertices[(index + 1) % MAX_VERTICES]
        edge = end - start
        to_x, to_y = x - start[0], y - start[1]
        along = jnp.clip((to_x * edge[0] + to_y * edge[1]) / jnp.maximum(edge @ edge, 1e-12), 0.0, 1.0)
        distance2 = jnp.minimum(distance2, (to_x - along * edge[0]) ** 2 + (to_y - along * edge[1]) ** 2)
        # A ray to the right crosses an edge that straddles the point's height and passes to its right.
        straddles = (start[1] > y) != (end[1] > y)
        inside ^= straddles & ((edge[0] * to_y > edge[1] * to_x) == (edge[1] > 0))
    polygon = jnp.where(inside, -1.0, 1.0) * jnp.sqrt(distance2)
    first, second, subtracted = (jnp.hypot(x - disk[0], y - disk[1]) - disk[2] for disk in disks)
    return jnp.maximum(jnp.minimum(polygon, jnp.minimum(first, second)), -subtracted)


def mask(
    shape: Int[Array, ""], *, shift: Float[Array, "2"], angle: Float[Array, ""], scale: Float[Array, ""]
) -> Float[Array, "h w"]:
    """The antialiased coverage of each pixel by one shape, in [0, 1].

    Args:
        shape: its index in `SHAPES`.
        shift: displacement (x to the right, y down) of the centroid from the middle of the image, in pixels.
        angle: clockwise rotation in radians.
        scale: factor on the nominal size, at which the shape covers `SHAPE_AREA` pixels.
    """
    centre = jnp.arange(IMAGE_SIZE, dtype=jnp.float32) + 0.5 - IMAGE_SIZE / 2
    x, y = jnp.meshgrid(centre - shift[0], centre - shift[1])
    frame = jnp.asarray(FRAMES)[shape]
    pixels = frame[2] * scale
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    own_x, own_y = (cos * x + sin * y) / pixels + frame[0], (cos * y - sin * x) / pixels + frame[1]
    return jnp.clip(0.5 - pixels * signed_distance(own_x, own_y, shape), 0.0, 1.0)
