"""What is to be said of the images of a data set as a whole."""

from collections.abc import Mapping

import numpy as np

from segkit.config import DataConfig
from segkit.data.findings import Finding
from segkit.data.source import Source
from segkit.doctor.examine import SplitFacts


def image_findings(splits: Mapping[str, SplitFacts], sources: Mapping[str, Source], config: DataConfig) -> list[Finding]:
    """Splits that are missing, images smaller than the crop, channels that say nothing, bits that are not used."""
    findings = [Finding("no_split", "", split) for split in ("train", "val") if split not in sources]
    used = {split: facts for split, facts in splits.items() if facts.usable.any()}
    if "train" in used:
        train = used["train"]
        for index in np.flatnonzero(train.usable & (train.sizes < config.crop).any(axis=1)).tolist():
            rows, columns = train.sizes[index]
            what = f"train/{sources['train'].name(index)}: {columns} x {rows}, --data.crop {config.crop}"
            findings.append(Finding("small", "train", what, (("train", index),)))
    if not used:
        return findings
    mean, square, grey = (
        np.concatenate([getattr(facts, name)[facts.usable] for facts in used.values()]) for name in ("mean", "square", "grey")
    )
    if mean.shape[1] > 1:
        if grey.all():
            findings.append(Finding("grey", "", f"all {len(grey)} images"))
        else:
            still = (square - mean**2 < 1e-9).all(axis=0) & (np.ptp(mean, axis=0) < 1e-6)
            findings += [Finding("dead_channel", "", f"channel {channel} of 0 to {len(still) - 1}") for channel in np.flatnonzero(still)]
    if config.bits == 16:
        values = int(np.bitwise_or.reduce(np.concatenate([facts.bits[facts.usable] for facts in used.values()])))
        # values of 8-bit files are multiples of 257, which use all bits
        high, low = values.bit_length(), (values & -values).bit_length() - 1 if values else 0
        if values and (high < 16 or low > 0):
            findings.append(Finding("unused_bits", "", f"bits {low} to {high - 1} of 0 to 15 are used: {high - low} of 16"))
    return findings
