"""Write the trials.jsonl beside this file; any tool can write such lines.

It simulates three ways of extracting an order number, scored 0 or 1 by a test harness. The outcomes
are invented, with a fixed seed. Yours come from your harness.
"""

import json
import random
from pathlib import Path


def main() -> None:
    rng = random.Random(11)
    lines = []
    for item in range(500):
        hard = rng.gauss(0, 1)
        customer = f"customer-{item // 2}"
        for arm, skill, tokens, seeds in (
            ("large model, long prompt", 1.45, 1900, [None]),
            ("small model, long prompt", 0.55, 1900, [None]),
            ("small model, fine-tuned", 1.55, 240, ["0", "1", "2"]),
        ):
            for seed in seeds:
                right = hard + rng.gauss(0, 0.45) + skill > 0
                line = {
                    "arm": arm,
                    "item": f"order-{item}",
                    "score": int(right),
                    "cluster": customer,
                    "input_tokens": tokens + rng.randint(-80, 80),
                    "output_tokens": 24,
                    "seconds": round(rng.lognormvariate(-0.4, 0.3), 3),
                }
                lines.append(json.dumps(line if seed is None else {**line, "seed": seed}))
    Path(__file__).with_name("trials.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
