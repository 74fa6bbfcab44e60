"""scikit-learn's handwritten digits: 1,797 real 8 x 8 images that need no download.

The set has no official test part; the split here is fixed.
"""

import numpy as np

from mi_jax.data.dataset import Dataset, Split, stratified_split

TEST_SHARE = 0.2


def dataset() -> Dataset:
    """1,438 training and 359 test digits (stratified, always the same), 8 x 8 x 1, 17 grey levels stretched to 0..255.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), the part that
    `sklearn.datasets.load_digits` ships.
    """
    from sklearn.datasets import load_digits  # here, since other data sets should not wait for it

    pixels, target = load_digits(return_X_y=True)
    images = np.round(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    everything = Split(images=images, labels=np.asarray(target, np.int32))
    train, test = stratified_split(everything, TEST_SHARE)
    return Dataset(name="digits", train=train, test=test, class_names=tuple(str(digit) for digit in range(10)))
