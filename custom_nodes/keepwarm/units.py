"""Units of memory: sizes are bytes inside, settings count in MiB and GiB, people read decimal megabytes."""

MIB = 1024**2
GIB = 1024**3


def megabytes(count_bytes: float) -> str:
    """Bytes for people: decimal megabytes, from a gigabyte on gigabytes."""
    return f"{count_bytes / 1e6:.1f} MB" if count_bytes < 1e9 else f"{count_bytes / 1e9:.2f} GB"
