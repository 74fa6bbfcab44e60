"""Compiles training, attacks and estimators for an H100 and a TPU v5e on a machine without either; nothing is run.

Prints kernels and bytes of the compiled programs, operations, and the time that the device's peak rates allow. Needs
the compilers of the device, which pip packages bring, see `PACKAGES`.
"""

import functools
import importlib
import importlib.util
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mi_jax import data, models
from mi_jax.attacks import PGD, ascend
from mi_jax.attacks.losses import loss_of
from mi_jax.errors import InputError
from mi_jax.information import _pairwise, _tiles
from mi_jax.training import ObjectiveConfig, Optimizer, Trainer

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""XLA's GpuTargetConfigProto of the device, as text."""

_ITEM_SIZES = {
    **dict.fromkeys(("pred", "s8", "u8"), 1),
    **dict.fromkeys(("bf16", "f16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64"), 8),
}
_WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
"""What libtpu would otherwise ask of the machine."""
_NO_KERNEL = {
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "while", "after-all", "conditional", "call"),
    *("copy-done", "async-done"),
}


@dataclass(frozen=True)
class Device:
    """A device to compile for, and its peak rates.

    Attributes:
        name: of the device.
        packages: module to the pip package that brings the compiler.
        topology: arguments of `jax.experimental.topologies.get_topology_desc`.
        rates: operations per second by compute dtype.
        bandwidth: bytes per second of its memory.
    """

    name: str
    packages: dict[str, str]
    topology: dict[str, Any]
    rates: dict[str, float]
    bandwidth: float

    def missing(self) -> list[str]:
        """The pip packages that are not installed."""
        return [package for module, package in self.packages.items() if not _found(module)]

    def compiler_options(self) -> dict[str, Any]:
        """Without autotuning, which would need the device, and with the folder of NVIDIA's assembler."""
        if self.topology["platform"] != "cuda":
            return {}
        (folder,) = importlib.import_module("nvidia.cuda_nvcc").__path__
        return {"xla_gpu_autotune_level": 0, "xla_gpu_cuda_data_dir": folder}

    @functools.cached_property
    def sharding(self) -> NamedSharding:
        """Of arguments on one such device."""
        for name, value in _WITHOUT_TPU.items():
            os.environ.setdefault(name, value)
        devices = topologies.get_topology_desc(**self.topology).devices
        return NamedSharding(Mesh(np.array(devices[:1]), ("device",)), PartitionSpec())


DEVICES = (
    Device(
        "H100",
        {
            "jax_plugins.xla_cuda12": "jax-cuda12-pjrt",
            "jax_cuda12_plugin": "jax-cuda12-plugin",
            "nvidia.cuda_nvcc": "nvidia-cuda-nvcc-cu12",
            "nvidia.cuda_runtime": "nvidia-cuda-runtime-cu12",
        },
        {"platform": "cuda", "topology_name": "h100", "topology": "1x1x1", "target_config": H100},
        {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}
        | {"bfloat16x6": 989e12 / 6, "tf32x3": 495e12 / 3, "bfloat16x3": 989e12 / 3},
        3.35e12,
    ),
    Device(
        "TPU v5e",
        {"libtpu": "libtpu"},
        {"platform": "tpu", "topology_name": "v5e:2x2"},
        {"bfloat16": 197e12, "tf32": 197e12 / 3, "float32": 197e12 / 6}  # by three and six passes of bfloat16
        | {"bfloat16x6": 197e12 / 6, "tf32x3": 197e12 / 6, "bfloat16x3": 197e12 / 3},
        819e9,
    ),
)


@dataclass(frozen=True)
class Cost:
    """What a compiled program does in one turn of its loop, or in all if it has none.

    Attributes:
        kernels: operations that read and write memory.
        bytes: their operands and results.
        flops: of convolutions and matrix products, by definition.
    """

    kernels: int
    bytes: int
    flops: float

    def seconds(self, device: Device, dtype: str) -> float:
        """The roofline estimate: all operations at the peak rate, or all bytes at the memory's, whichever is longer."""
        return max(self.flops / device.rates[dtype], self.bytes / device.bandwidth)


@dataclass(frozen=True)
class Program:
    """Something to compile.

    Attributes:
        name: what it is.
        function: traceable.
        specs: shapes of its arguments.
        dtype: what it computes in.
        flops: of one turn of its loop.
        loop: whether the figures are of one turn of its longest loop, or else of what is outside of loops.
    """

    name: str
    function: Callable[..., Any]
    specs: tuple[Any, ...]
    dtype: str
    flops: float
    loop: bool = True


@dataclass(frozen=True)
class Work:
    """Programs that follow one another.

    Attributes:
        name: what they do.
        parts: how often each runs.
        dtype: what most of it computes in.
    """

    name: str
    parts: tuple[tuple[int, Program], ...]
    dtype: str


def attack_step(arch: str, *, dtype: str = "bfloat16", batch: int = 128, steps: int = 7) -> Program:
    """PGD as in training; the figures are of one step: a forward pass and the gradient of the images."""
    network = models.create(arch, num_classes=10, input_shape=(32, 32, 3), dtype=dtype)

    def attack(variables: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        folded, weights = network.fold(variables)
        losses = loss_of("ce", y)
        config = PGD(steps=steps, random_start=False)
        return ascend(lambda x, state: (losses(folded.logits(weights, x)), state), x, config=config)[0]

    specs = (
        jax.eval_shape(network.init, jax.random.key(0)),
        jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    return Program(f"PGD step, {arch} {dtype}, batch {batch}", attack, specs, dtype, 2.0 * batch * network.flops)


def training_update(arch: str, *, objective: str = "nt", dtype: str = "bfloat16", batch: int = 128) -> Program:
    """An update of a training, with its attack if it has one; the figures leave out the attack's loop."""
    network = models.create(arch, num_classes=10, input_shape=(32, 32, 3), dtype=dtype)
    trainer = Trainer(
        network=network, objective=objective, objective_config=ObjectiveConfig(PGD(steps=7)), optimizer=Optimizer(),
        augmentation=data.Augmentation(pad=4, flip=True), epochs=1, batch_size=batch, examples=batch, seeds=(0,),
    )  # fmt: skip
    images = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.uint8)
    specs = (jax.eval_shape(trainer.init, images), images, jax.ShapeDtypeStruct((batch,), jnp.int32))

    def update(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        return trainer.advance(state, images, labels, 0, 1)

    name = f"update of {objective.upper()}, {arch} {dtype}, batch {batch}"
    return Program(name, update, specs, dtype, 3.0 * batch * network.flops)


def kernel_tile(tile: int = 2048, width: int = 8192, *, precision: Any = "float32") -> Program:
    """The product of one pair of tiles of a kernel density estimate."""
    specs = (
        jax.ShapeDtypeStruct((1, tile, tile), jnp.float32),
        *(jax.ShapeDtypeStruct((tile, width), jnp.float32),) * 2,
        jax.ShapeDtypeStruct((1, 2), jnp.int32),
    )
    step = _tiles.gram_step(tile, precision, None)
    name = f"KDE tile of {tile} rows, {width} features, {precision}"
    return Program(name, step, specs, precision, 2.0 * tile * tile * width)


def kde_pass(*, n: int = 50_000, features: int = 65_536, classes: int = 10, precision: Any = "tf32x3") -> Work:
    """A kernel density estimate at one noise level, of rows in the device's memory."""
    tile, width = 2000, 8192
    tiles, chunks = n // tile, features // width
    pairs = tiles * (tiles + 1) // 2
    groups = -(-pairs // math.isqrt(4 * _tiles.BLOCK_BYTES // (tile * tile * 4)) ** 2)
    f32, i32 = _spec, functools.partial(_spec, dtype=jnp.int32)
    rows, labels = f32((n, width)), i32((n,))
    products, two = f32((2, tile, tile)), i32((2, 2))  # of two pairs of two tiles, so that the loop stays one
    padded = f32((2 * tile,)), f32((2 * tile, classes)), i32((2 * tile,))
    product = Program(
        "product", _tiles.gram_step(tile, precision, None), (products, *[f32((2 * tile, width))] * 2, two),
        precision, 2.0 * tile * tile * width,
    )  # fmt: skip
    sums = Program(
        "sums", _pairwise._sum_step(tile, (1, 4), None),
        (f32((2, 2, 1, 2, tile)), products, *padded, two, f32((1,)), None), "float32", 0.0,
    )  # fmt: skip
    layout = _tiles.Layout(labels, labels, i32((classes,)), i32((classes,)))
    centres = _tiles.Centres(*(f32((classes, width)),) * 3)
    options = {"rows": n, "precision": precision}
    entry = functools.partial(Program, dtype="float32", flops=0.0, loop=False)
    sort = entry("sort", _tiles.taken, (rows, labels))
    centre = entry("centre", functools.partial(_tiles.centre, **options), (rows, layout))
    again = entry("centre again", functools.partial(_tiles.centred_again, **options), (rows, labels, centres))
    parts = (pairs * chunks, product), (pairs, sums), (groups * chunks, sort), (chunks, centre)
    return Work(
        f"KDE of {n:,} rows, {features:,} features, {precision}", (*parts, ((groups - 1) * chunks, again)), precision
    )


def _spec(shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


PROGRAMS: dict[str, Callable[[], Program | Work]] = {
    **{f"attack {arch}": functools.partial(attack_step, arch) for arch in ("vgg11", "resnet18")},
    "training vgg11": functools.partial(training_update, "vgg11"),
    "kde": kernel_tile,
    "kde tf32": functools.partial(kernel_tile, precision="tf32"),
    **{
        f"kde pass {precision}": functools.partial(kde_pass, precision=precision)
        for precision in ("float32", "bfloat16x6", "tf32x3", "bfloat16x3")
    },
}


def compiled_cost(program: Program, device: Device) -> Cost:
    """Compiles a program for a device and reads the figures."""
    specs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device.sharding), program.specs
    )
    text = jax.jit(program.function).lower(*specs).compile(device.compiler_options()).as_text()
    assert text is not None
    kernels = _kernels(text, loop=program.loop)
    return Cost(len(kernels), sum(kernels), program.flops)


def work_cost(work: Work, device: Device) -> tuple[Cost, float, float]:
    """Compiles all programs of some work: their cost together, the roofline estimate, and the share of the peak.

    A program that slices large operands is charged for all of them, which is more than it reads.
    """
    costs = [(count, program, compiled_cost(program, device)) for count, program in work.parts]
    total = Cost(*(sum(count * getattr(c, name) for count, _, c in costs) for name in ("kernels", "bytes", "flops")))
    seconds = sum(count * cost.seconds(device, program.dtype) for count, program, cost in costs)
    return total, seconds, total.flops / device.rates[work.dtype] / seconds


def _kernels(program: str, *, loop: bool = True) -> list[int]:
    """Bytes of each kernel in a program in HLO's text: in its longest loop body, or in its entry without a loop."""
    computations, name, entry = {}, "", ""
    for line in program.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            name, entry = head[2], head[2] if head[1] else entry
            computations[name] = []
        elif line.startswith("  ") and name:
            computations[name].append(line)
    bodies = (re.findall(r"body=%?([\w.\-]+)", program) if loop else []) or [entry]
    return max((_kernels_of(computations[body]) for body in bodies), key=len)


def _kernels_of(lines: list[str]) -> list[int]:
    sizes, kernels = {}, []
    for line in lines:
        found = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$", line)
        if found:
            name, result, operation, rest = found.groups()
            sizes[name] = _bytes(result)
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            if operation not in _NO_KERNEL:
                kernels.append(sizes[name] + sum(sizes.get(operand, 0) for operand in operands))
    return kernels


def _bytes(shape: str) -> int:
    parts = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    return sum(_ITEM_SIZES.get(dtype, 0) * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in parts)


def main(*, quick: bool = False) -> dict[tuple[str, str], Cost]:
    """Compiles every program for every device whose compiler is installed, and prints a table.

    Args:
        quick: the KDE tile alone.

    Raises:
        InputError: when no compiler is installed.
    """
    available = [device for device in DEVICES if not device.missing()]
    for device in DEVICES:
        if missing := device.missing():
            print(f"Left out {device.name}, whose compiler is not installed: {_pip_command(missing)}")
    if not available:
        commands = " or ".join(_pip_command(device.missing()) for device in DEVICES)
        raise InputError(f"No compiler for an accelerator is installed; run {commands}.")
    print(f"{'':<52}{'device':>9}{'kernels':>9}{'GB':>8}{'GFLOP':>9}{'ms':>9}{'of peak':>9}")
    costs = {}
    for name in ("kde",) if quick else PROGRAMS:
        program = PROGRAMS[name]()
        work = program if isinstance(program, Work) else Work(program.name, ((1, program),), program.dtype)
        for device in available:
            cost, seconds, share = work_cost(work, device)
            costs[name, device.name] = cost
            print(
                f"{work.name:<52}{device.name:>9}{cost.kernels:>9}{cost.bytes / 1e9:>8.3f}{cost.flops / 1e9:>9.1f}"
                f"{seconds * 1e3:>9.3f}{share:>9.0%}",
                flush=True,
            )
    return costs


def _pip_command(packages: list[str]) -> str:
    """Plug-ins have the version of jaxlib; `--no-deps` leaves the installed JAX alone."""
    pinned = [f"{name}=={jax.lib.__version__}" if name.startswith("jax-") else name for name in packages]
    return f"`pip install --no-deps {' '.join(pinned)}`"


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
