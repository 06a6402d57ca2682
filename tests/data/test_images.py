"""Images on their way into a network."""

from __future__ import annotations

import numpy as np
import torch

import fewshot
from fewshot.data import open_dataset
from fewshot.data.images import as_tensor


def test_a_stores_images_become_tensors_without_a_copy_or_a_warning(small_run):
    """They are read-only: torch warns of that, once in a process unless told otherwise."""
    images = open_dataset("glyphs")["test"].images[:3]
    torch.set_warn_always(True)
    try:
        embedded = fewshot.load(small_run, device="cpu").embed(images)
        tensor = as_tensor(images)
    finally:
        torch.set_warn_always(False)
    assert torch.equal(embedded, fewshot.load(small_run, device="cpu").embed(torch.from_numpy(np.array(images))))
    assert tensor.data_ptr() == images.ctypes.data and as_tensor(tensor) is tensor
