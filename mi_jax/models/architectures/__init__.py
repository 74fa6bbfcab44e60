"""The architectures, one file each; every module of this package is imported when an architecture is first looked up.

An architecture is a callable of a `ModelSpec` and a `NormalStream` (the source of the initial weights) that returns a
`flax.nnx` module; the module takes normalised images and a `ForwardContext` and returns the logits. A file here, or a
cell of a notebook, is all that a new one needs:

    >>> import jax
    >>> from flax import nnx
    >>> import mi_jax as mj
    >>> from mi_jax.models import convolution
    >>> from mi_jax.models.layers import BatchNorm, Conv, ForwardContext, Head, ModelSpec, NormalStream
    >>> @mj.models.register("tiny")
    ... class Tiny(nnx.Module):
    ...     \"\"\"One normalised convolution and mean pooling. Taps: `conv1` after the ReLU, `pooled`, `logits`.\"\"\"
    ...
    ...     def __init__(self, spec: ModelSpec, stream: NormalStream):
    ...         features = spec.channels(8)
    ...         self.conv1 = Conv(spec.input_shape[-1], features, 3, spec, stream)
    ...         self.norm1 = BatchNorm(features, spec)
    ...         self.head = Head(features, spec, stream)
    ...
    ...     def __call__(self, x: jax.Array, context: ForwardContext) -> jax.Array:
    ...         \"\"\"Logits of normalised images.\"\"\"
    ...         x = context.tap("conv1", jax.nn.relu(self.norm1(self.conv1(x), context)))
    ...         x = context.tap("pooled", convolution.mean_pool(x))
    ...         return self.head(x, context)
    >>> network = mj.models.create("tiny", num_classes=4, input_shape=(8, 8, 3))
    >>> network.tap_shapes
    {'conv1': (8, 8, 8), 'pooled': (8,), 'logits': (4,)}
    >>> logits, taps = network.apply(network.init(jax.random.key(0)), jax.numpy.zeros((2, 8, 8, 3)))
    >>> logits.shape
    (2, 4)
    >>> mj.models.ARCHITECTURES.unregister("tiny")
"""
