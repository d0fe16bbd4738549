"""GraphStore: converted networks on disk, from which a pass starts without Keras.

Each graph is a file, named after the space of the rows that it computes and a digest of its key.
The file holds the key, the bytes of the graph, and a digest of both. If it is lost or damaged, the
network is built and converted again.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from featx._files import check_folder, is_regular, names_in, read_regular, unseal, write_in_order
from featx.cache.damage import DamageLog
from featx.digests.hashing import DIGEST_BYTES, digest_of, digest_of_json

GRAPH_START = b"featx-graph-1\n"
GRAPH_NAME = r"[0-9a-f]{32}-[0-9a-f]{32}\.graph"  # pattern
_DAMAGED = "its checksum does not fit"
MAX_GRAPH_BYTES = 2**29  # of a file; larger ones take long to write and to read


class GraphKey(NamedTuple):
    """Identity of a stored graph: digests of spaces, engine and its version, dtype of inputs."""

    spaces: tuple[str, ...]
    engine: str
    version: str
    dtype: str

    def to_json(self) -> dict[str, object]:
        """Return the key as plain data."""
        return {**self._asdict(), "spaces": list(self.spaces)}

    @property
    def file_name(self) -> str:
        """Name of the file: the digest of the first space and the digest of the key."""
        return f"{self.spaces[0]}-{digest_of_json(self.to_json())}.graph"


class GraphStore:
    """A folder of stored graphs, which is created when the first one is stored.

    Damaged files are moved to `damaged_folder`.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> graphs = GraphStore(root / "graphs", damaged_folder=root / "damaged")
    >>> key = GraphKey(("ab" * 16,), "openvino", "2026.4", "uint8")
    >>> graphs.store(key, b"a graph")
    >>> bytes(graphs.find(key)), graphs.find(key._replace(version="2027.1"))
    (b'a graph', None)
    """

    def __init__(self, folder: Path, *, damaged_folder: Path) -> None:
        self.folder = folder
        self._damage = DamageLog(damaged_folder, prefix=folder.name)

    def has(self, key: GraphKey) -> bool:
        """Return True if a key has a file, without reading it."""
        return self._is_followed() and is_regular(self.folder / key.file_name)

    def find(self, key: GraphKey) -> memoryview | None:
        """Return the graph stored under a key; None if there is none.

        Warns
        -----
        CacheDamageWarning
            The file is damaged; it is quarantined.
        """
        if not self._is_followed():
            return None
        path, head = self.folder / key.file_name, _graph_file_header(key)
        try:
            data = memoryview(read_regular(path, max_bytes=MAX_GRAPH_BYTES))
        except FileNotFoundError:
            return None
        except OSError as exc:
            self.quarantine({path: f"cannot be read ({exc.strerror or exc})"})
            return None
        # Not copied, since it may be large.
        content, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if content[: len(head)] == head and digest == digest_of(content):
            return content[len(head) :]
        self.quarantine({path: _DAMAGED})
        return None

    def store(self, key: GraphKey, graph: bytes | memoryview) -> None:
        """Store a graph under a key; raise OSError if it cannot be written."""
        check_folder(self.folder)
        head = _graph_file_header(key)
        write_in_order({self.folder / key.file_name: [head, graph, digest_of(head, graph)]})

    def refuse(self, key: GraphKey, reason: str) -> None:
        """Quarantine a graph that cannot be used, with a warning."""
        self.quarantine({self.folder / key.file_name: reason})

    def quarantine(self, faults: Mapping[Path, str]) -> None:
        """Quarantine files for the given reasons, with one warning."""
        with self._damage.reported():
            for path, reason in faults.items():
                self._damage.quarantine(path, reason=reason)

    def find_damage(self) -> dict[Path, str]:
        """Return the fault of each damaged file."""
        faults = {}
        for name in self._names():
            path = self.folder / name
            try:
                payload = unseal(read_regular(path, start=GRAPH_START, max_bytes=MAX_GRAPH_BYTES))
            except FileNotFoundError:
                continue
            except OSError as exc:
                faults[path] = f"cannot be read ({exc.strerror or exc})"
                continue
            if payload is None:
                faults[path] = _DAMAGED
        return faults

    def sizes(self) -> dict[str, int]:
        """Return the total size in bytes of the graphs, by the digest of their first space."""
        sizes: dict[str, int] = {}
        for name in self._names():
            with contextlib.suppress(OSError):
                size = (self.folder / name).stat().st_size
                digest = name.partition("-")[0]
                sizes[digest] = sizes.get(digest, 0) + size
        return sizes

    def remove(self, digests: Iterable[str]) -> None:
        """Remove the graphs whose first space has one of these digests."""
        removed = set(digests)
        for name in self._names():
            if name.partition("-")[0] in removed:
                (self.folder / name).unlink(missing_ok=True)

    def _is_followed(self) -> bool:
        """Return False if a link or a file has taken the place of the folder."""
        try:
            check_folder(self.folder)
        except NotADirectoryError:
            return False
        return True

    def _names(self) -> list[str]:
        names = filter(re.compile(GRAPH_NAME).fullmatch, names_in(self.folder))
        return sorted(name for name in names if is_regular(self.folder / name))


def _graph_file_header(key: GraphKey) -> bytes:
    return GRAPH_START + json.dumps(key.to_json(), sort_keys=True).encode() + b"\n"
