"""A small encoder in the format of the embedded one: what a study does with MiniLM, for a 160th of it.

It was distilled from MiniLM on the messages of the example, so it tells the example's queues apart about
as well, and knows no other words. Tests of what MiniLM itself does ask for the fixture `minilm`.

    python tests/small_encoder.py                      distills it again, in some minutes
    python tests/small_encoder.py FOLDER ARGUMENT...   runs the command line with the encoder of a folder
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tunepoint.cli import app as cli
from tunepoint.models import encoder, encoder_weights

WIDTH, HEADS, INNER, LAYERS = 64, 4, 128, 2
DISTILLED = Path(__file__).parent / "data" / "small-encoder.safetensors"
"""Half-precision weights, with the word embeddings of KNOWN only."""
KNOWN = "known_words"
WORDS = "embeddings.word_embeddings.weight"
EXAMPLE = Path(__file__).parents[1] / "examples" / "support-triage"
PUBLISHED = encoder_weights.find_weights, encoder_weights.check_weights


def use(folder: Path | None) -> None:
    """Let this process load the encoder of a folder in place of the published one; None undoes that."""
    find, check = PUBLISHED if folder is None else (lambda: folder, lambda folder: None)
    encoder.find_weights, encoder.check_weights = find, check  # type: ignore[attr-defined]


def write_small_encoder(folder: Path) -> None:
    """Write config, weights and tokenizer of the small encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.float() for name, value in load_file(DISTILLED).items() if name != KNOWN}
    known = load_file(DISTILLED)[KNOWN]
    words = torch.zeros(_config()["vocab_size"], WIDTH)
    words[known.long()] = state[WORDS]
    save_file({**state, WORDS: words}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config()), encoding="utf-8")
    shutil.copy(PUBLISHED[0]() / "tokenizer.json", folder)


def _config() -> dict[str, object]:
    content = json.loads((PUBLISHED[0]() / "config.json").read_text(encoding="utf-8"))
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": INNER}
    sizes["num_hidden_layers"] = LAYERS
    return {**content, **sizes, "model_type": "bert"}


def distill(epochs: int = 40) -> None:
    """Train a small model to give the messages of the example MiniLM's vectors, reduced to WIDTH numbers."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    texts = []
    for name in ("messages.csv", "new_product.csv"):
        with (EXAMPLE / name).open(newline="", encoding="utf-8") as file:
            texts += [row["text"] for row in csv.DictReader(file) if row["text"]]
    teacher = encoder.Encoder.load()
    vectors = teacher.embed(texts)
    axes = np.linalg.svd(vectors, full_matrices=False)[2][:WIDTH]
    goals = torch.nn.functional.normalize(torch.from_numpy(vectors @ axes.T), dim=-1)
    model = BertModel(BertConfig(**_config()), add_pooling_layer=False)
    pupil = encoder.Encoder("small", teacher.tokenizer, model.embeddings, list(model.encoder.layer))
    tokens = pupil.tokens(texts)
    batches = encoder.batch_by_length([len(text) for text in tokens], 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * len(batches))
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        losses = []
        for k in rng.permutation(len(batches)).tolist():
            state, mask = pupil.input_states([tokens[i] for i in batches[k]])
            loss = 1 - (pupil.pool(state, mask, 0) * goals[batches[k]]).sum(dim=-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch}: 1 - cosine {np.mean(losses):.4f}", flush=True)
    known = torch.tensor(sorted({number for text in tokens for number in text}), dtype=torch.int32)
    state = {name: value.half() for name, value in model.state_dict().items() if value.is_floating_point()}
    save_file({**state, WORDS: state[WORDS][known.long()], KNOWN: known}, DISTILLED)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        distill()
    else:
        use(Path(sys.argv[1]))
        sys.argv = ["tunepoint", *sys.argv[2:]]
        cli.app()
