"""scikit-learn's handwritten digits: 1,797 real 8 x 8 images that need no download."""

import numpy as np

from mi_jax.data.dataset import Dataset, Split, first_balanced, stratified_split
from mi_jax.data.registry import register

_TEST_SHARE = 0.2


@register("digits")
def digits(*, limit: int | None = None) -> Dataset:
    """1,438 training and 359 test digits (a fixed stratified split), 8 x 8 x 1, 17 grey levels scaled to 0..255.

    Args:
        limit: keep so many images of each split, balanced over classes; None for all.

    References:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), the part that
        `sklearn.datasets.load_digits` ships.
    """
    from sklearn.datasets import load_digits  # imported here, because it is slow and no other data set needs it

    pixels, target = load_digits(return_X_y=True)
    images = np.round(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    train, test = stratified_split(Split(images=images, labels=np.asarray(target, np.int32)), _TEST_SHARE)
    names = tuple(str(digit) for digit in range(10))
    return first_balanced(Dataset(name="digits", train=train, test=test, class_names=names), limit)
