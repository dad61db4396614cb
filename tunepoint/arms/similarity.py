"""Similarity of texts: the most similar rows, and vectors where no encoder is installed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunepoint.data.examples import Example
from tunepoint.models.chat import Embed


def word_vectors(train: Sequence[Example]) -> Embed:
    """Return an embedding by TF-IDF of character n-grams, fitted on the training inputs."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=20_000
    )
    vectorizer.fit([example.input for example in train])

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(vectorizer.transform(texts).toarray(), dtype=np.float32)

    return embed


def nearest_rows(rows: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return (q, k) positions of the rows most similar to each query, most similar first."""
    similarity = queries @ rows.T
    k = min(k, len(rows))
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]
