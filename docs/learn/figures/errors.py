# Error of an emulated kernel and its bounds, against length and precision.
import matplotlib.pyplot as plt

from style import COLOURS, GREY, lines

table = lines("error_model.lengths")
for colour, dtype in zip(COLOURS, dict.fromkeys(row[0] for row in table)):
    rows = [row for row in table if row[0] == dtype]
    length = [int(row[1]) for row in rows]
    plt.loglog(length, [float(row[3]) for row in rows], "o-", color=colour, label=dtype, base=2)
    plt.loglog(length, [float(row[5]) for row in rows], "--", color=colour, base=2)
    plt.loglog(length, [float(row[6]) for row in rows], ":", color=colour, base=2)
plt.plot([], [], "o-", color=GREY, label="worst error")
plt.plot([], [], "--", color=GREY, label="its bound")
plt.plot([], [], ":", color=GREY, label="its rigorous bound")
plt.yscale("log", base=10)
plt.xlabel("keys")
plt.ylabel("relative to the largest |o|")
plt.xticks(length, length)
plt.ylim(bottom=3e-9)
plt.legend(fontsize=8, ncol=2, loc="lower left")
