"""Where the libraries keep what they want to keep: a home and a temporary folder that can be written to. Standard library only."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from segkit.errors import SegkitError

# what prints warnings, or gives up, where the home cannot be written to; weights are not among it: they are read from there all the same
KEPT = ("MPLCONFIGDIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")


def settle() -> None:
    """Gives libraries a temporary folder, gone at the end, in place of a home that is missing or read-only.

    Raises:
        SegkitError: There is no temporary folder either, or the working folder is gone.
    """
    try:
        os.getcwd()
    except OSError as error:  # torch's libraries would end the process
        raise SegkitError(f"the working folder is gone ({error.strerror}); change to one that exists: cd DIR") from None
    try:
        tempfile.gettempdir()
    except OSError:
        given = os.environ.get("TMPDIR", "which is not set")
        raise SegkitError(f"no temporary folder can be written to, neither TMPDIR, {given}, nor /tmp; set TMPDIR to one") from None
    wanted = [name for name in KEPT if name not in os.environ]
    if wanted and not _writable_home():
        folder = tempfile.mkdtemp(prefix="segkit-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        if Path(os.environ.get("HOME") or "/nowhere", ".config", "wandb", "settings").exists():
            wanted = [name for name in wanted if name != "WANDB_CONFIG_DIR"]  # where it says which server is meant
        os.environ.update(dict.fromkeys(wanted, folder))


def _writable_home() -> bool:
    home = os.environ.get("HOME")
    if not home:  # some look it up elsewhere, others do not
        return False
    places = [Path(home, *parts) for parts in ((), (".cache",), (".config",), (".local", "share"))]
    return all(os.access(place, os.W_OK) for place in places if place == places[0] or place.exists())
