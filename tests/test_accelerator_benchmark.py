"""`mi-jax benchmark accelerator`: the cost of programs compiled for an H100, where its compiler is installed."""

import importlib

import pytest

from mi_jax.cli.benchmark import FOLDER
from mi_jax.errors import InputError

PROGRAM = """
body.1 (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  %w = bf16[4,4]{1,0} constant({...})
  %fusion.1 = bf16[8,4]{1,0} fusion(%p), kind=kLoop, calls=%fused
  %conv = (bf16[8,4]{1,0}, u8[16]{0}) custom-call(%fusion.1, %w), custom_call_target="conv"
  %out = bf16[8,4]{1,0} get-tuple-element(%conv), index=0
  ROOT %wide = f32[8,4]{1,0} convert(%out)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  ROOT %loop = f32[8,4]{1,0} while(%x), condition=%condition, body=%body.1
}
"""


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("accelerator")


def test_kernels_of_a_loop_are_counted_with_operands_and_results(accelerator):
    assert accelerator._kernels(PROGRAM) == [128 + 64, 64 + 32 + 64 + 16, 64 + 128]


def test_kernels_outside_of_loops_are_those_of_the_entry(accelerator):
    assert accelerator._kernels(PROGRAM, loop=False) == []


def test_a_kde_pass_multiplies_every_pair_of_tiles_once(accelerator):
    work = accelerator.kde_pass(n=50_000, features=65_536)
    assert sum(count * program.flops for count, program in work.parts) == 50_000 * 52_000 * 65_536


def test_without_a_compiler_one_sentence_says_what_to_install(accelerator, monkeypatch):
    monkeypatch.setattr(accelerator, "_found", lambda module: False)
    with pytest.raises(InputError, match=r"run `pip install --no-deps jax-cuda12-pjrt==\S+ .*` or `pip .* libtpu`\."):
        accelerator.main()


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "gigabytes", "kernels"), [("resnet18", 1.45, 95), ("vgg11", 0.323, 50)])
def test_a_step_of_pgd_is_as_small_as_promised_on_an_h100(accelerator, arch, gigabytes, kernels):
    device = accelerator.DEVICES[0]
    if device.missing():
        pytest.skip(f"needs {', '.join(device.missing())}")
    cost = accelerator.compiled_cost(accelerator.attack_step(arch), device)
    assert cost.bytes <= gigabytes * 1e9
    assert cost.kernels <= kernels


@pytest.mark.slow
def test_a_pass_over_50_000_rows_of_65_536_features_takes_less_than_2_s_on_an_h100(accelerator):
    device = accelerator.DEVICES[0]
    if device.missing():
        pytest.skip(f"needs {', '.join(device.missing())}")
    cost, seconds, _ = accelerator.work_cost(accelerator.kde_pass(precision="tf32x3"), device)
    assert seconds < 1.5
    assert cost.flops / device.rates["tf32x3"] + cost.bytes / device.bandwidth < 2  # if nothing overlaps
