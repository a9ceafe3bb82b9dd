// Histograms of errors as SVG.
#include <algorithm>
#include <array>
#include <cmath>

#include "verify/report/svg.hpp"
#include "verify/report/svg_text.hpp"

namespace attest {
namespace {

/// How many of the elements have a normal distribution leave to each step.
std::array<double, ErrorHistogram::steps> normal_count(const ErrorHistogram& histogram) {
  std::array<double, ErrorHistogram::steps> count{};
  const auto below = [](Index step) {
    if (step == 0) return 0.0;
    if (step == ErrorHistogram::steps) return 1.0;
    const double at = static_cast<double>(step - ErrorHistogram::steps / 2) * ErrorHistogram::width;
    return 0.5 * std::erfc(-at / std::sqrt(2.0));
  };
  for (Index step = 0; step < ErrorHistogram::steps; ++step)
    count[step] = static_cast<double>(histogram.total) * (below(step + 1) - below(step));
  return count;
}

/// Bars `width` pixels wide and at most `height` high, their foot at (left, foot), and the line.
std::string bars(const ErrorHistogram& histogram, Index left, Index foot, Index width, Index height) {
  const auto normal = normal_count(histogram);
  const double most =
      std::max(static_cast<double>(std::ranges::max(histogram.count)), std::ranges::max(normal));
  const auto pixels = [&](double count) {
    const auto rounded = static_cast<Index>(std::lround(static_cast<double>(height) * count / most));
    return count > 0 ? std::max<Index>(rounded, 1) : 0;  // a single element is to be seen
  };
  std::string path, line = "M" + number(left) + " " + number(foot);
  for (Index step = 0; step < ErrorHistogram::steps; ++step) {
    const Index x = left + step * width, high = pixels(static_cast<double>(histogram.count[step]));
    if (high > 0)
      path += "M" + number(x) + " " + number(foot) + "v-" + number(high) + "h" + number(width) + "v" +
              number(high) + "z";
    const auto expected = static_cast<Index>(std::lround(static_cast<double>(height) * normal[step] / most));
    line += "V" + number(foot - expected) + "h" + number(width);
  }
  return "<path class=\"bars\" d=\"" + path + "\"/><path class=\"normal\" d=\"" + line + "V" + number(foot) +
         "\"/>";
}

}  // namespace

std::string svg_of(const ErrorHistogram& histogram, const std::string& alternative) {
  constexpr Index width = 8, height = 96, left = 8, foot = 104;
  constexpr Index middle = left + ErrorHistogram::steps / 2 * width,
                  unit = static_cast<Index>(width / ErrorHistogram::width);
  std::string labels;
  for (const Index at : {-4, -2, 0, 2, 4})
    labels += text_at(middle + at * unit, foot + 14, "middle", (at < 0 ? "−" : "") + number(std::abs(at)));
  labels += text_at(middle, foot + 30, "middle", "error / predicted");
  return image(left + ErrorHistogram::steps * width + 14, foot + 36, alternative,
               bars(histogram, left, foot, width, height) + labels);
}

std::string small_svg_of(const ErrorHistogram& histogram, const std::string& alternative) {
  constexpr Index width = 2, height = 40;
  return image(ErrorHistogram::steps * width, height, alternative, bars(histogram, 0, height, width, height));
}

}  // namespace attest
