// What a gradient of a sink may be in place of itself: of head h it is -sum_i exp(sink_h - lse_i) delta_i.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

#include "verify/compare.hpp"
#include "verify/ops/attention/gradient_of_bias.hpp"
#include "verify/ops/attention/gradient_terms.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

constexpr double same_factor = 0.005;  // factors no further apart are called by one name

}  // namespace

std::vector<Decoy> wrong_dsink(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                               std::span<const Expected> expected) {
  const auto dsink = std::ranges::find(expected, "dsink", &Expected::output);
  if (dsink == expected.end() || saved.empty() || !has_wrong_elements(*dsink)) return {};
  const BackwardPass pass(attention, saved, "dq");
  const Index heads = pass.in(0).q_heads();
  if (!pass.in(0).sink || std::ssize(dsink->value) != heads) return {};
  const auto weight = [&](QueryPlace at) {
    return std::exp(pass.in(0).sink(at.h) - saved[at.n].lse(at.h, at.i));
  };
  const auto delta = [&](QueryPlace at) { return pass.delta(at); };

  std::vector<Decoy> all;
  // of_row(place): a share of what is subtracted.
  const auto add = [&](const std::string& name, auto of_row) {
    Decoy answer{name, "dsink", {}, {}, false, true};
    for (Index h = 0; h < heads; ++h) {
      double sum = 0;
      for (std::size_t n = 0; n < pass.sequences(); ++n) {
        for (Index i = 0; i < pass.in(n).queries(); ++i)
          if (const double x = of_row(QueryPlace{n, h, i}); std::isfinite(x)) sum -= x;
      }
      answer.at.push_back(h);
      answer.value.push_back(sum);
    }
    const bool is_known = std::ranges::any_of(all, [&](const Decoy& x) { return x.value == answer.value; });
    if (!is_known) all.push_back(std::move(answer));
  };
  const auto of_rows = [&](const std::string& name, auto count) {
    add(name, [&, count](QueryPlace at) {
      const double times = count(at);
      return times == 0 ? 0 : times * weight(at) * delta(at);
    });
  };
  const std::size_t entries = pass.sequences();
  for (std::size_t x = 0; x < entries && entries > 1; ++x) {
    const std::string entry = "batch entry or sequence " + std::to_string(x);
    of_rows("dsink of " + entry + " only", [x](QueryPlace at) { return at.n == x ? 1.0 : 0; });
    of_rows("dsink without " + entry, [x](QueryPlace at) { return at.n == x ? 0.0 : 1; });
    of_rows("dsink with " + entry + " counted twice", [x](QueryPlace at) { return at.n == x ? 2.0 : 1; });
  }
  const auto rows_of = [&](QueryPlace at) { return pass.in(at.n).queries(); };
  for (const Index tile : {64, 128, 32, 16, 256}) {
    const std::string of = " tile of " + std::to_string(tile) + " rows";
    of_rows("dsink without the last" + of,
            [=](QueryPlace at) { return at.i >= (rows_of(at) - 1) / tile * tile ? 0.0 : 1; });
    of_rows("dsink of the last" + of + " only",
            [=](QueryPlace at) { return at.i >= (rows_of(at) - 1) / tile * tile ? 1.0 : 0; });
    of_rows("dsink without the first" + of, [=](QueryPlace at) { return at.i < tile ? 0.0 : 1; });
    of_rows("dsink of the first" + of + " only", [=](QueryPlace at) { return at.i < tile ? 1.0 : 0; });
    of_rows(
        "dsink with rows beyond the last, up to tiles of " + std::to_string(tile) + ", that read it again",
        [=](QueryPlace at) {
          const Index rows = rows_of(at);
          return at.i == rows - 1 ? static_cast<double>((rows + tile - 1) / tile * tile - rows + 1) : 1.0;
        });
  }
  for (const Index period : {2, 4, 8, 16, 32}) {
    const std::string of = " of every " + std::to_string(period);
    for (Index first = 0; first < period; ++first) {
      of_rows("dsink without row " + std::to_string(first) + of,
              [=](QueryPlace at) { return at.i % period == first ? 0.0 : 1; });
      of_rows("dsink of row " + std::to_string(first) + of + " only",
              [=](QueryPlace at) { return at.i % period == first ? 1.0 : 0; });
    }
  }
  add("dsink with p (1 - p) in place of p",
      [&](QueryPlace at) { return weight(at) * (1 - weight(at)) * delta(at); });
  add("dsink of exp(sink), not divided by the row sum",
      [&](QueryPlace at) { return std::exp(pass.in(0).sink(at.h)) * delta(at); });
  add("dsink without delta: the sum of the sink's weights", weight);
  add("dsink without the sink's weights: the sum of delta", delta);
  add("dsink of the weights in another base: exp2 for exp", [&](QueryPlace at) {
    return std::exp2(pass.in(0).sink(at.h) - saved[at.n].lse(at.h, at.i)) * delta(at);
  });
  add("dsink of a sink without log2(e), in base 2", [&](QueryPlace at) {
    return std::exp(std::numbers::ln2 * pass.in(0).sink(at.h) - saved[at.n].lse(at.h, at.i)) * delta(at);
  });
  if (heads > 1) {
    for (const auto& [what, shift] :
         {std::pair{"the next head", Index{1}}, std::pair{"the head before", heads - 1}}) {
      const auto other = [heads, by = shift](QueryPlace at) {
        at.h = (at.h + by) % heads;
        return at;
      };
      const std::string of = std::string(" of ") + what;
      add("dsink" + of, [=](QueryPlace at) { return weight(other(at)) * delta(other(at)); });
      add("dsink with delta" + of, [=](QueryPlace at) { return weight(at) * delta(other(at)); });
      add("dsink with lse" + of, [&, other](QueryPlace at) {
        return std::exp(pass.in(0).sink(at.h) - saved[at.n].lse(other(at).h, at.i)) * delta(at);
      });
      add("dsink with the sink" + of, [&, other](QueryPlace at) {
        return std::exp(pass.in(0).sink(other(at).h) - saved[at.n].lse(at.h, at.i)) * delta(at);
      });
    }
  }
  const double scale = attention.spec.scale;
  const std::pair<const char*, double> known_factors[] = {{"the scale", scale},
                                                          {"1 / scale", 1 / scale},
                                                          {"log2(e)", std::numbers::log2e},
                                                          {"ln(2)", std::numbers::ln2}};
  for (const auto& [name, factor] : known_factors) {
    if (std::isfinite(factor) && factor != 1)
      of_rows("dsink multiplied by " + std::string(name), [f = factor](QueryPlace) { return f; });
  }
  // A factor that is none of these: the median of what three heads or more say.
  std::vector<double> ratios;
  for (Index h = 0; h < heads; ++h) ratios.push_back(dsink->dumped->values[h] / dsink->value[h]);
  constexpr std::size_t least_heads = 3;
  if (ratios.size() >= least_heads &&
      std::ranges::all_of(ratios, [](double x) { return std::isfinite(x); })) {
    const auto middle = ratios.begin() + std::ssize(ratios) / 2;
    std::ranges::nth_element(ratios, middle);
    const double f = *middle;
    const bool is_known = std::ranges::any_of(
        known_factors, [f](const auto& x) { return std::abs(f / x.second - 1) < same_factor; });
    if (f > 0 && f != 1 && !is_known)  // the other sign is a decoy
      of_rows("dsink multiplied by " + factor_text(f), [f](QueryPlace) { return f; });
  }
  return all;
}

}  // namespace attest
