"""Objects below an address, as in `s3://bucket/folder`, by way of fsspec."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from tunepoint.errors import StudyError

REMOVED_AT_ONCE = 500
"""Objects that are removed by one call, where the storage can."""


class ObjectStore:
    """The objects below an address, by their names."""

    def __init__(self, address: str, system: Any, root: str) -> None:
        self.address = address
        self._system = system
        self._root = root.rstrip("/")
        protocol = system.protocol
        self._in_place = "file" in ((protocol,) if isinstance(protocol, str) else protocol)
        """Whether an object that is written half is there, as in a folder."""

    @classmethod
    def of(cls, address: str) -> ObjectStore:
        """Open an address.

        Raises:
            StudyError: nothing that is installed can.

        """
        try:
            import fsspec  # type: ignore[import-untyped]

            options = {"auto_mkdir": True} if address.startswith(("file://", "local://")) else {}
            system, root = fsspec.core.url_to_fs(address, **options)
        except (ImportError, ValueError) as error:
            raise StudyError(
                f"{address}: cannot be opened ({error}); it takes fsspec and the package of its storage, as "
                "in `pip install fsspec s3fs`"
            ) from None
        return cls(address, system, root)

    def names(self) -> set[str]:
        """Names of all objects; none where nothing was written yet."""
        self._system.invalidate_cache()
        try:
            paths = self._system.find(self._root)
        except FileNotFoundError:
            return set()
        return {str(path)[len(self._root) :].lstrip("/") for path in paths}

    def read(self, name: str) -> bytes | None:
        """Return an object; None where there is none."""
        with suppress(FileNotFoundError):
            return bytes(self._system.cat_file(f"{self._root}/{name}"))
        return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object as a whole."""
        path = f"{self._root}/{name}"
        if not self._in_place:
            self._system.pipe_file(path, content)
            return
        self._system.pipe_file(f"{path}.part", content)
        self._system.mv(f"{path}.part", path)

    def remove(self, names: Collection[str]) -> None:
        """Remove objects, those that are there."""
        paths = [f"{self._root}/{name}" for name in sorted(names)]
        for start in range(0, len(paths), REMOVED_AT_ONCE):
            page = paths[start : start + REMOVED_AT_ONCE]
            try:
                self._system.rm(page)
            except FileNotFoundError:
                for path in page:
                    with suppress(FileNotFoundError):
                        self._system.rm_file(path)
