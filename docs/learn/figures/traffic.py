# Bytes moved against the length of the sequence.
import matplotlib.pyplot as plt

from style import lines

table = lines("standard_attention.traffic")
length = [int(row[0]) for row in table]
for column, label in enumerate(["standard", "tiled, 64 rows", "tiled, 128 rows"], 1):
    plt.loglog(length, [float(row[column]) for row in table], "o-", label=label, base=2)
plt.loglog(length, [4 * n * 64 * 2 / 2**20 for n in length], ":", color="#808890", label="Q, K, V and O once", base=2)
plt.xlabel("N")
plt.ylabel("MiB moved, one head, D = 64, float16")
plt.yscale("log", base=10)
plt.xticks(length, length)
plt.legend()
