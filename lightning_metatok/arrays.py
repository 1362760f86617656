"""Types of arrays that all rooms speak of."""

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
