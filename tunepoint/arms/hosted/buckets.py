"""The bucket from which a cloud reads rows: named in the environment, as `s3://BUCKET/FOLDER`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from tunepoint.errors import ModelError


@dataclass(frozen=True)
class Bucket:
    """A folder in a cloud's storage."""

    scheme: str
    name: str
    folder: str

    @classmethod
    def from_environment(cls, variable: str, scheme: str) -> Bucket:
        """Return the folder that a variable names.

        Raises:
            ModelError: it is not set, or names something else.

        """
        address = os.environ.get(variable, "").strip()
        parts = urlsplit(address)
        if parts.scheme != scheme or not parts.netloc:
            given = f" (it is {address!r})" if address else ""
            raise ModelError(
                f"rows are read from a bucket: set {variable}, as to {scheme}://my-bucket/tunepoint{given}"
            )
        return cls(scheme, parts.netloc, parts.path.strip("/"))

    def path(self, name: str) -> str:
        """Return the path of a file in the bucket."""
        return f"{self.folder}/{name}" if self.folder else name

    def address(self, name: str) -> str:
        """Return the address of a file, or of a folder."""
        return f"{self.scheme}://{self.name}/{self.path(name)}"
