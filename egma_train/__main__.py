"""``python -m egma_train``, for torchrun."""

from egma_train.cli import main

main()
