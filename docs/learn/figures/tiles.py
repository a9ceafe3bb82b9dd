# Which tiles a causal mask leaves: none, part or all of their pairs.
import matplotlib.pyplot as plt

from style import lines

COLOUR = {"none": "none", "part": "#e07020", "all": "#2f80d0"}
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.6))
maps = {"bottom_right": "causal_tiles.example", "top_left": "causal_tiles.top_left"}
for panel, (title, name) in zip(axes, maps.items()):
    rows = [row for row in lines(name) if row[0] == "rows"]
    tiles = [[word for word in row if word in COLOUR] for row in rows]
    heights = [int(last) - int(first) + 1 for first, last in
               ("".join(word for word in row[1:] if word not in COLOUR).split("-") for row in rows)]
    keys, tile, top = 14, 4, 0
    for row, height in zip(tiles, heights):
        for column, cover in enumerate(row):
            left, width = tile * column, min(tile, keys - tile * column)
            panel.add_patch(plt.Rectangle((left, top), width, height, facecolor=COLOUR[cover], edgecolor="#808890",
                                          alpha=0.8))
            panel.text(left + width / 2, top + height / 2, cover, ha="center", va="center",
                       color="#808890" if cover == "none" else "white", fontsize=8)
        top += height
    panel.set(xlim=(-0.2, keys + 0.2), ylim=(top + 0.2, -0.2), title=title, xlabel="key", ylabel="query row",
              aspect="equal", xticks=range(0, keys + 1, tile), yticks=range(0, top + 1, tile))
    panel.grid(False)
