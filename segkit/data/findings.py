"""Everything that can be wrong with a data set: one table of kinds, each with what it does to training and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Kind:
    """One thing that can be wrong.

    Args:
        severity: error: training fails or the scores lie; warning: the result suffers; note: worth knowing.
        title: What it is, in the singular; a listing's problems are found by it.
        why: What it does.
        remedy: What to do.
    """

    severity: Severity
    title: str
    why: str
    remedy: str


KINDS: Mapping[str, Kind] = {
    # found when the files are listed
    "no_mask": Kind(
        "error", "image without mask", "It cannot be trained on.", "add a mask of the image's name under masks/, or remove the image"
    ),
    "no_image": Kind(
        "error", "mask without image", "It belongs to nothing.", "add an image of the mask's name under images/, or remove the mask"
    ),
    "two_files": Kind("error", "two files of one name", "Which one is meant is not known.", "keep one of them, or rename one and its mask"),
    "listing": Kind("error", "entry that cannot be used", "The image is left out.", "mend the entry, or take it out"),
    "no_split": Kind(
        "error",
        "split that is missing",
        "Training needs train and val.",
        "move some pairs there, or keep all in one folder or list without splits and let --data.val_fraction and --data.group divide it",
    ),
    "empty_split": Kind(
        "error", "split without an image that has a mask", "There is nothing to read.", "put pairs there, or remove its folder"
    ),
    # found when a pair is read
    "missing": Kind("error", "file that does not exist", "The list names it.", "restore the file, or take it out of the list"),
    "empty": Kind("error", "empty file", "It has no bytes, as after a full disk.", "copy it again, or remove the pair"),
    "unreadable": Kind("error", "file that is no image", "No decoder knows it.", "replace it by a PNG, JPEG or TIFF, or remove the pair"),
    "truncated": Kind("error", "truncated file", "Its end is missing, as after a stopped copy.", "copy it again, or remove the pair"),
    "damaged": Kind("error", "damaged file", "Its bytes contradict themselves.", "copy it again, or remove the pair"),
    "other_content": Kind("error", "file that is not the one listed", "Its hash is another.", "put the listed file back, or list this one"),
    "too_large": Kind("error", "image with too many pixels", "It would fill the memory of every loader process.", "cut it into tiles"),
    "bomb": Kind(
        "error",
        "decompression bomb",
        "A small file that claims a huge picture: a mistake or an attack.",
        "remove it; if the picture is meant, cut it into tiles",
    ),
    "deep_image": Kind(
        "error", "image of more than 8 bits", "Its values do not fit.", "--data.bits 16, or convert the images with a scaling you choose"
    ),
    "channels": Kind(
        "error",
        "image with another number of channels",
        "The network takes one number of channels.",
        "--in_channels as the files have, or convert them",
    ),
    "frames": Kind("error", "file with several pictures", "Which one is meant is not known.", "store one picture per file"),
    "refused": Kind("error", "file of a kind that is not read", "Reading it would guess.", "do what its line says"),
    "color_mask": Kind(
        "error",
        "mask of colours",
        "A mask has one channel of class ids.",
        "--data.masks colors, with the colours in classes.txt or in --data.mapping",
    ),
    "lossy_mask": Kind(
        "error",
        "mask with lossy compression",
        "It invents labels along every edge.",
        "export the masks again as PNG; a JPEG cannot be mended",
    ),
    "size": Kind(
        "error",
        "mask of another size than its image",
        "They do not lie on each other.",
        "export the mask at the image's size, by the nearest pixel",
    ),
    "half_turned": Kind(
        "error",
        "image turned by its EXIF tag, mask not",
        "The mask was drawn on the picture as it is stored.",
        "turn the image's pixels and drop the tag (exiftran, mogrify -auto-orient) and the mask alike, or remove the tag",
    ),
    "labels": Kind(
        "error",
        "label that stands for no class",
        "The loss has no place for it.",
        "--data.mapping '{OLD: NEW, ...}' with every value of the masks and its class id, or 255 to ignore it; or add it to classes.txt",
    ),
    # found when all pairs are known
    "binary": Kind(
        "error", "masks of 0 and 255 only", "255 means ignore: there is one class left, and any score is perfect.", "--data.masks binary"
    ),
    "leak": Kind(
        "error",
        "image in two splits",
        "What was trained on is scored.",
        "remove it from one of the splits, or divide again with --data.group",
    ),
    "near_leak": Kind(
        "warning",
        "nearly the same image in two splits",
        "Scores on it say little about new images; frames of one video do this.",
        "keep what belongs together in one split: --data.group, or move the images",
    ),
    "contradiction": Kind("warning", "one image, different masks", "It is taught to be two things.", "keep the better mask of them"),
    "shared_mask": Kind("warning", "one mask, different images", "All but one of them are likely wrong.", "export the masks again"),
    "never": Kind("warning", "class that never occurs", "It is never learnt and has no score.", "remove it from classes.txt, or label it"),
    "unlearnt": Kind(
        "warning", "class that is scored but not in train", "Its IoU will be 0.", "move images with it to train, or divide the data again"
    ),
    "unscored": Kind("note", "class of train that a split lacks", "It has no score there.", "move images with it to that split"),
    "drift": Kind(
        "warning",
        "classes distributed otherwise than in train",
        "The split differs by more than chance; its scores tell of other images than were trained on.",
        "divide the data at random, with --data.group for what belongs together; if the difference is meant, ignore this",
    ),
    "all_ignored": Kind("warning", "mask in which all is ignored", "Nothing is learnt from it.", "label it, or remove the pair"),
    "flat": Kind(
        "warning", "image without content", "All its pixels are alike, as of a covered lens.", "remove the pair, or export it again"
    ),
    "turned_unsure": Kind(
        "warning",
        "turned image whose mask may not be",
        "EXIF turns the image; the mask has the right size either way.",
        "look whether they lie on each other; best store both upright, without the tag",
    ),
    "dead_channel": Kind("warning", "channel that never changes", "It says nothing.", "export the images again, or leave the channel out"),
    "alpha": Kind("note", "image with transparency", "Its alpha channel is dropped.", "nothing, or --in_channels 4 to train on it"),
    "cmyk": Kind(
        "note", "image in printing colours", "It is converted without its colour profile.", "nothing, or convert the images to sRGB"
    ),
    "grey": Kind(
        "note", "grey images read as RGB", "All three channels are equal.", "--in_channels 1 is faster, unless the encoder is pretrained"
    ),
    "unused_bits": Kind("note", "bits that no image uses", "Values reach a fraction of the range.", "--data.normalize dataset"),
    "small": Kind("note", "training image smaller than the crop", "It is padded with ignored pixels.", "a smaller --data.crop"),
    "constant": Kind("note", "mask of one class", "Nothing in it has a boundary.", "nothing where the picture is like that"),
    "turned": Kind(
        "note", "image turned by its EXIF tag", "It is turned on reading, and so must its mask be.", "nothing; other tools may not turn it"
    ),
    "duplicate": Kind("note", "image that a split has twice", "It weighs double.", "remove all but one"),
    "near_duplicate": Kind(
        "note",
        "images of a split that are nearly the same",
        "They count as fewer images than they are.",
        "nothing; for frames of a video it is usual",
    ),
}
_TITLES = {kind.title: name for name, kind in KINDS.items()}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        kind: A key of `KINDS`.
        split: Where; "" for the whole data set.
        what: Which file, and in what way.
        images: The images that it is about, as (split, index); empty where it is about none in particular.
        counts: labels: value in the mask file -> pixels.
    """

    kind: str
    split: str
    what: str
    images: tuple[tuple[str, int], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.kind in KINDS


def listed(split: str, problem: str) -> Finding:
    """What a source's `problems` say in words, `title: what`."""
    title, _, what = problem.partition(": ")
    kind = _TITLES.get(title)
    return Finding(kind, split, what) if kind else Finding("listing", split, problem)
