// Activations of other elements, and activations that are another function of x, whatever function.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "verify/compare.hpp"
#include "verify/diagnose.hpp"
#include "verify/ops/activation_problem.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/weighted_sums.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using ref::Activation;

constexpr Index most_elements = 2048, most_offset = 1 << 20;

/// With so many elements chance takes the share below up or down by 0.06.
constexpr std::size_t least_elements = 256;
constexpr double least_explained = 0.7;

struct Point {
  double x, error;
};

/// The share of the squares of the errors that neighbours in x have in common: 1 if errors are a smooth
/// function of x, about 0 if they have nothing to do with each other. After von Neumann (1941).
double share_in_common(std::vector<Point> points) {
  std::ranges::sort(points, {}, &Point::x);
  double steps = 0, squares = 0, count = 0;
  for (std::size_t n = 1; n < points.size(); ++n) {
    const double before = points[n - 1].error, step = points[n].error - before;
    steps += step * step, squares += before * before, count += 1;
  }
  return count > 0 && squares > 0 ? 1 - steps / (2 * squares) : 0;
}

}  // namespace

std::vector<Decoy> ActivationProblem::misplaced(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  const Index n = x_.size();
  struct Other {
    std::string name;
    std::function<Index(Index at)> of;
  };
  for (const Expected& e : expected) {
    std::vector<Index> wrong;
    for (Index at = 0; at < n; ++at)
      if (!within_bound(e, at, e.dumped->values[at])) wrong.push_back(at);
    if (wrong.empty()) continue;
    std::vector<Other> others;
    // Modulo a power of 2, the elements before it are right.
    const Index first = wrong.front();
    const Index size = static_cast<Index>(std::bit_floor(static_cast<std::size_t>(first)));
    if (size > 1)
      others.push_back(
          {"elements at their index modulo " + std::to_string(size), [=](Index at) { return at % size; }});
    if (first > size)
      others.push_back({"elements from " + std::to_string(first) + " on are those from 0 on",
                        [=](Index at) { return at - first; }});
    for (Index by = 1; by < std::min(n, most_offset); by *= 2) {
      if (by != size || n > 2 * size)
        others.push_back({"elements " + std::to_string(by) + " before", [=](Index at) { return at - by; }});
      others.push_back({"elements " + std::to_string(by) + " further on", [=](Index at) { return at + by; }});
    }
    const std::size_t rank = x_.shape.size();
    if (rank >= 2) {
      const Index columns = x_.shape[rank - 1], rows = x_.shape[rank - 2], matrix = rows * columns;
      if (rows > 1 && columns > 1) {
        others.push_back({"elements of the row before", [=](Index at) { return at - columns; }});
        others.push_back({"elements of the next row", [=](Index at) { return at + columns; }});
        others.push_back({"rows and columns exchanged", [=](Index at) {
                            const Index in = at % matrix;
                            return at - in + in % rows * columns + in / rows;
                          }});
      }
    }
    const Tensor* dy = case_.input("dy");
    for (const Other& other : others) {
      for (const bool of_dy : {false, true}) {
        // A gradient may read both of its inputs there, or x alone.
        if (of_dy && e.output != "dx") continue;
        Decoy& decoy = all.emplace_back(
            Decoy{other.name + (e.output == "dx" && !of_dy ? ", of x alone" : ""), e.output, {}, {}});
        for (const Index k : evenly_spread(static_cast<Index>(wrong.size()), most_elements)) {
          const Index at = wrong[k], from = other.of(at);
          if (from < 0 || from >= n || from == at) continue;
          const double x = x_.values[from];
          decoy.at.push_back(at);
          decoy.value.push_back(e.output == "y"
                                    ? ref::activation(kind_, x)
                                    : dy->values[of_dy ? from : at] * ref::activation_derivative(kind_, x));
        }
        if (static_cast<Index>(decoy.at.size()) < std::min<Index>(static_cast<Index>(wrong.size()), 3))
          all.pop_back();
      }
    }
  }
  return all;
}

std::vector<DiagnosisEntry> ActivationProblem::explanations(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all;
  const std::string own = kind_ == Activation::gelu_erf    ? "erf"
                          : kind_ == Activation::gelu_tanh ? "tanh"
                                                           : "the sigmoid";
  const auto y = std::ranges::find(expected, "y", &Expected::output);
  const bool y_is_wrong = y != expected.end() && has_wrong_elements(*y);
  for (const Expected& e : expected) {
    if (e.output == "dx" && y_is_wrong) continue;
    std::vector<Index> order(x_.size());
    std::iota(order.begin(), order.end(), Index{0});
    std::ranges::sort(order, {}, [&](Index at) { return x_.values[at]; });
    // Stores err with the digits of y, which follow x where y is nearly a line, and alike where x is alike:
    // only where a neighbour in x errs by more an element is looked at.
    const auto error = [&](Index at) { return e.dumped->values[at] - e.value[at]; };
    const auto is_gross = [&](Index at) { return std::abs(error(at)) > ulp(e.dumped->values[at], e.dtype); };
    std::vector<Point> points;
    double off = 0;
    for (std::size_t n = 1; n + 1 < order.size(); ++n) {
      const Index at = order[n];
      const double x = x_.values[at];
      const bool is_told = is_gross(order[n - 1]) || is_gross(at) || is_gross(order[n + 1]);
      if (x == x_.values[order[n - 1]] || !is_told || !std::isfinite(error(at))) continue;
      const double factor = e.output == "dx"               ? case_.input("dy")->values[at]
                            : kind_ == Activation::sigmoid ? 1
                                                           : x;
      if (factor == 0) continue;
      points.push_back({x, error(at) / factor});
      const bool is_gate = kind_ == Activation::gelu_erf || kind_ == Activation::gelu_tanh;
      if (is_gross(at))
        off = std::max(off, std::abs(error(at) / factor) * (is_gate && e.output == "y" ? 2 : 1));
    }
    const double share = points.size() < least_elements ? 0 : share_in_common(points);
    if (share < least_explained) continue;
    if (e.output == "y") {
      all.push_back({own + " by an approximation that is off by up to " + number_text(off, 2), share,
                     percent(share) + " of the squared errors are a function of x"});
    } else {
      all.push_back({"the derivative, which is another function of x", confidence_of_a_place,
                     percent(share) + " of the squared errors of dx / dy are a function of x"});
    }
  }
  return all;
}

}  // namespace attest
