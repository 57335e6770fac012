"""How much memory a process may still take. Standard library only."""

from pathlib import Path

_NAMES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}  # versions 2 and 1


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: what the machine has free, and what is left of the limits of its control groups.

    Args:
        root: Where proc and sys are mounted.
    """
    lines = (root / "proc/meminfo").read_text().splitlines()
    free = [next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))]
    groups = root / "sys/fs/cgroup"
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            base, names = (groups / controllers, _NAMES[controllers])
            group = base / path.lstrip("/")
            free += [left for part in (group, *group.parents) if part.is_relative_to(base) for left in _left(part, *names)]
    return min(free)


def _left(group: Path, limit: str, usage: str) -> list[int]:
    """What a control group may still take, files that it has read and need not keep included; nothing where it has no limit."""
    try:
        most, used, stat = ((group / name).read_text() for name in (limit, usage, "memory.stat"))
    except OSError:  # in a container only its own groups can be seen
        return []
    if not most.strip().isdigit():  # "max"
        return []
    cached = [int(line.split()[1]) for line in stat.splitlines() if line.startswith(("inactive_file ", "total_inactive_file "))]
    return [int(most) - int(used) + max(cached, default=0)]
