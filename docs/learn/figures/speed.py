# Share of the multiply-add peak that attention reaches, from bench/results.
import json

import matplotlib.pyplot as plt

from style import ROOT

results = json.loads(sorted((ROOT / "bench" / "results").glob("*.json"))[0].read_text(encoding="utf-8"))
shares = {(row["shape"], row["by"]): row["share"] for row in results["rows"]
          if row["unit"] == "operation" and row["type"] == "fp32" and row["what"] == "forward" and row["threads"] == 1}
ways = {"v4": "tiled, AVX-512", "v3": "tiled, AVX2", "Eigen": "Eigen, whole matrices"}
shapes = list(dict.fromkeys(shape for shape, _ in shares))
plt.figure(figsize=(6.4, 4.2))
for n, (way, label) in enumerate(ways.items()):
    plt.barh([y + 0.27 * (n - 1) for y in range(len(shapes))], [shares.get((shape, way), 0) for shape in shapes], 0.25,
             label=label)
plt.yticks(range(len(shapes)), shapes)
plt.gca().invert_yaxis()
plt.grid(axis="y", visible=False)
plt.xlim(0, 1)
plt.xlabel(f"share of the multiply-add peak, float32, forward, one thread\n{results['processor']}")
plt.legend(loc="upper right", fontsize=8)
