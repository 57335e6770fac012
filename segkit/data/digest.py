"""A proof of what a run was trained on."""

import hashlib
from typing import Any


class StreamDigest:
    """Two chains of sha256 over the training batches of this process, each link the hash of the last one and of the new batch.

    Runs whose `order` agrees saw the same images in the same order; runs whose `batches` agree saw the same pixels and masks, augmented
    alike. A chain is one short word, so that a checkpoint carries it and a resumed run goes on with it.
    """

    def __init__(self) -> None:
        self.order = self.batches = ""
        self._step: int | None = None
        self._before = self.state_dict()

    def update(self, batch: dict[str, Any], step: int | None = None) -> None:
        """Add a batch: `index` [B] to `order`, `image` [B, C, H, W] and `mask` [B, H, W] to `batches`; all in host memory.

        Args:
            batch: The batch.
            step: The optimiser step that it is for.
        """
        if step is None or step != self._step:
            self._step, self._before = step, self.state_dict()
        image, mask, index = (batch[key].contiguous().numpy() for key in ("image", "mask", "index"))
        self.order = hashlib.sha256(self.order.encode() + index.tobytes()).hexdigest()
        link = hashlib.sha256(self.batches.encode())
        link.update(image.data)
        link.update(mask.data)
        self.batches = link.hexdigest()

    def state_dict(self, step: int | None = None) -> dict[str, str]:
        """Both chains so far, "" before the first batch.

        Args:
            step: Optimiser steps that are done: the batches of one that is not are left out, since a resumed run has them again. A run that
                a signal stops has loaded the next batch already.
        """
        if step is not None and step == self._step:
            return dict(self._before)
        return {"order": self.order, "batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        """Go on with the chains of an earlier part of the run."""
        self.order, self.batches = state_dict["order"], state_dict["batches"]
        self._step = None
