// Maps of errors as SVG: cells as lines of one colour, and what is drawn over them.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "verify/report/svg.hpp"
#include "verify/report/svg_text.hpp"

namespace attest {
namespace {

/// Up to which |error| / bound a cell has the colour of class "r0", "r1", ...; the last is for infinity.
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr std::array<float, 8> limits = {0.25f,   0.5f, 0.75f, 1, 3, 10, std::numeric_limits<float>::max(),
                                         infinity};
constexpr std::array<const char*, limits.size()> meanings = {"to ¼", "to ½",  "to ¾", "to 1",
                                                             "to 3", "to 10", "more", "∞, NaN"};
constexpr int not_judged = static_cast<int>(limits.size());

int class_of(float ratio) {
  if (std::isnan(ratio)) return not_judged;
  return static_cast<int>(std::ranges::lower_bound(limits, ratio) - limits.begin());
}

/// One path for each class: a line along the middle of every run of cells.
std::string cells_of(Index down, Index across, const std::vector<float>& ratio) {
  std::array<std::string, limits.size() + 1> paths;
  for (Index y = 0; y < down; ++y) {
    for (Index x = 0; x < across;) {
      const int kind = class_of(ratio[y * across + x]);
      const Index first = x;
      while (x < across && class_of(ratio[y * across + x]) == kind) ++x;
      paths[kind] += "M" + number(first) + " " + number(y) + "h" + number(x - first);
    }
  }
  std::string svg;
  for (std::size_t kind = 0; kind < paths.size(); ++kind)
    if (!paths[kind].empty()) svg += "<path class=\"r" + number(kind) + "\" d=\"" + paths[kind] + "\"/>";
  return svg;
}

/// `cells` at (left, top), each width x height pixels.
std::string placed(const std::string& cells, Index left, Index top, Index width, Index height) {
  return "<g class=\"cells\" transform=\"translate(" + number(left) + " " + number(top) + ")scale(" +
         number(width) + " " + number(height) + ")translate(0 .5)\">" + cells + "</g>";
}

Index pixels_of_cell(Index cells, Index pixels, Index most) {
  return std::clamp<Index>(pixels / cells, 1, most);
}

/// A map on its way onto the page: where its cells are, in pixels.
struct Layout {
  static constexpr Index largest = 256, largest_cell = 16;
  const ErrorMap& map;
  Index left, top = 8, width, height;  // of the first cell
  explicit Layout(const ErrorMap& m)
      : map(m),
        left(m.down.name.empty() ? 8 : 58),
        width(pixels_of_cell(m.across.cells(), largest, largest_cell)),
        height(pixels_of_cell(m.down.cells(), largest, largest_cell)) {}

  Index right() const { return left + map.across.cells() * width; }
  Index bottom() const { return top + map.down.cells() * height; }
};

/// From one tick to the next, in indices: groups or powers of two of them, at least `least` pixels.
Index tick_step(const MapAxis& axis, Index cell, Index least) {
  Index step = axis.group;
  while (step * cell < least * axis.per_cell && step < axis.extent) step *= 2;
  return step;
}

std::string axes_of(const Layout& l) {
  std::string svg;
  const auto label = [&](const MapAxis& axis) {
    return axis.name + (axis.each.empty() ? "" : " of " + axis.each);
  };
  const MapAxis &down = l.map.down, &across = l.map.across;
  const Index digits = static_cast<Index>(number(across.extent).size());
  for (Index i = 0, step = tick_step(across, l.width, 16 + 7 * digits); i < across.extent; i += step)
    svg += text_at(l.left + i * l.width / across.per_cell + l.width / 2, l.bottom() + 14, "middle",
                   number(i / across.group));
  svg += text_at((l.left + l.right()) / 2, l.bottom() + 30, "middle", label(across));
  if (down.name.empty()) return svg;
  for (Index i = 0, step = tick_step(down, l.height, 28); i < down.extent; i += step)
    svg += text_at(l.left - 6, l.top + i * l.height / down.per_cell + l.height / 2 + 4, "end",
                   number(i / down.group));
  const Index middle = (l.top + l.bottom()) / 2;
  return svg + "<text class=\"middle\" transform=\"translate(12 " + number(middle) + ")rotate(-90)\">" +
         label(down) + "</text>";
}

/// Lines across the map at every `step` indices; none where they would hide it.
std::string borders_of(const Layout& l, Index step_down, Index step_across, const std::string& kind) {
  constexpr Index least = 4;  // pixels
  std::string path;
  const MapAxis &down = l.map.down, &across = l.map.across;
  if (step_down * l.height >= least * down.per_cell)
    for (Index i = step_down; i < down.extent; i += step_down)
      path +=
          "M" + number(l.left) + " " + number(l.top + i * l.height / down.per_cell) + "H" + number(l.right());
  if (step_across * l.width >= least * across.per_cell)
    for (Index i = step_across; i < across.extent; i += step_across)
      path += "M" + number(l.left + i * l.width / across.per_cell) + " " + number(l.top) + "V" +
              number(l.bottom());
  return path.empty() ? "" : "<path class=\"" + kind + "\" d=\"" + path + "\"/>";
}

/// Runs of indices as runs of cells.
std::vector<IndexRun> cell_runs(const MapAxis& axis) {
  std::vector<bool> cells(axis.cells());
  for (const IndexRun& run : axis.wrong)
    for (Index cell = run.first / axis.per_cell; cell <= run.last / axis.per_cell; ++cell) cells[cell] = true;
  return runs_of(cells);
}

/// Around every block of cells that has a wrong one, unless it is the whole map.
std::string outlines_of(const Layout& l) {
  constexpr Index margin = 3;  // pixels, so that a single cell can be seen inside
  std::string path;
  const Index columns = l.map.across.cells(), rows = l.map.down.cells();
  for (const IndexRun& down : cell_runs(l.map.down)) {
    for (const IndexRun& across : cell_runs(l.map.across)) {
      const Index high = down.last - down.first + 1, wide = across.last - across.first + 1;
      bool has_wrong = false;
      for (Index y = down.first; y <= down.last; ++y)
        for (Index x = across.first; x <= across.last; ++x) has_wrong |= l.map.ratio[y * columns + x] > 1;
      if (!has_wrong || (high == rows && wide == columns)) continue;
      path += "M" + number(l.left + across.first * l.width - margin) + " " +
              number(l.top + down.first * l.height - margin) + "h" + number(wide * l.width + 2 * margin) +
              "v" + number(high * l.height + 2 * margin) + "h-" + number(wide * l.width + 2 * margin) + "z";
    }
  }
  if (path.empty()) return "";
  return "<path class=\"halo\" d=\"" + path + "\"/><path class=\"wrong\" d=\"" + path + "\"/>";
}

}  // namespace

std::string svg_of(const ErrorMap& map, const std::string& alternative) {
  const Layout l(map);
  const Index down_group = map.down.group, across_group = map.across.group;
  return image(
      std::max<Index>(l.right() + 14, 150), l.bottom() + 36, alternative,
      placed(cells_of(map.down.cells(), map.across.cells(), map.ratio), l.left, l.top, l.width, l.height) +
          borders_of(l, down_group > 1 ? down_group : 0, across_group > 1 ? across_group : 0, "group") +
          borders_of(l, map.down.tile, map.across.tile, "tile") + outlines_of(l) + axes_of(l));
}

std::string small_svg_of(const ErrorMap& map, const std::string& alternative) {
  constexpr Index largest = 64, largest_cell = 8;  // pixels; cells of one could not be seen
  const Index down = map.down.cells(), across = map.across.cells();
  const Index by_down = down > largest / 2 ? 2 : 1, by_across = across > largest / 2 ? 2 : 1;
  const Index rows = (down + by_down - 1) / by_down, columns = (across + by_across - 1) / by_across;
  std::vector<float> ratio(rows * columns, std::numeric_limits<float>::quiet_NaN());
  for (Index y = 0; y < down; ++y) {
    for (Index x = 0; x < across; ++x) {
      float& cell = ratio[y / by_down * columns + x / by_across];
      const float here = map.ratio[y * across + x];
      if (!(cell >= here) && !std::isnan(here)) cell = here;
    }
  }
  const Index width = pixels_of_cell(columns, largest, largest_cell),
              height = pixels_of_cell(rows, largest, largest_cell);
  return image(columns * width, rows * height, alternative,
               placed(cells_of(rows, columns, ratio), 0, 0, width, height));
}

std::string legend_html() {
  std::string html = "<ul class=\"legend\">";
  for (std::size_t kind = 0; kind < limits.size(); ++kind)
    html += "<li><i class=\"r" + number(kind) + "\"></i>" + meanings[kind] + "</li>";
  return html + "<li><i class=\"r" + number(limits.size()) + "\"></i>not judged</li></ul>";
}

}  // namespace attest
