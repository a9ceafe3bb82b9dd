// Statistics of a row without the parts of some threads or warps, or with a tail that is read as 0; and sums
// of x of threads in a narrow format.
#include <algorithm>
#include <cmath>

#include "core/array.hpp"
#include "verify/compare.hpp"
#include "verify/ops/norm/places.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/stages.hpp"
#include "verify/ops/norm/warps.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/widths.hpp"

namespace attest {
namespace {

constexpr Index most_lanes = 1024, most_vector = 8, longest_block = 128, asked = 3;

/// What a guess may leave of the squared errors of a row, and of those of its statistics. Nothing is fitted.
constexpr double most_left = 0.02;

using Columns = std::function<bool(Index j)>;

class LostParts {
 public:
  LostParts(const NormSpec& spec, const NormInputs& in, DType compute)
      : right_{"", spec, in}, compute_(compute) {}

  void of_shuffles() {
    // Wider ones of a mean square are warps, which have names.
    const Index longest = right_.spec.is_centred ? longest_block : warp / 2;
    for (Index block = 1; block < right_.in.width() && block <= longest; block *= 2) {
      const std::string columns =
          block == 1 ? "column 1" : "columns " + std::to_string(block) + ".." + std::to_string(2 * block - 1);
      without([=](Index j) { return j / block % 2 == 1; },
              columns + " of every " + std::to_string(2 * block) + " missing in ",
              ", as without a step of a shuffle");
    }
  }
  void of_warps() {
    for (const Warps& warps : divisions_among_warps(right_.in.width()))
      for (Index w = 0; w < warps.count; ++w)
        without([=](Index j) { return warps.of(j) == w; },
                "warp " + std::to_string(w) + " of " + std::to_string(warps.count) + " missing in ",
                warps.vector == 1 ? "" : ", " + std::to_string(warps.vector) + " columns a thread");
  }
  void of_tails() {
    for (const Index cut : cut_widths(right_.in.width())) {
      const std::string from = "columns from " + std::to_string(cut) + " on ";
      without([=](Index j) { return j >= cut; }, from + "missing in ", "");
      add(from + "read as 0").read_columns = cut;
    }
  }
  void narrow() {
    for (Index lanes = warp; lanes <= most_lanes && lanes < right_.in.width(); lanes *= 2)
      for (Index vector = 1; vector <= most_vector; vector *= 2)
        for (const DType narrow : narrow_formats(compute_)) narrow_sums(lanes, vector, narrow);
  }
  const std::vector<NormVariant>& all() const { return all_; }

 private:
  static constexpr Index warp = Warps::lanes;

  NormVariant& add(std::string name) {
    all_.push_back(right_);
    all_.back().name = std::move(name);
    return all_.back();
  }
  void without(const Columns& lost, const std::string& before, const std::string& after) {
    const auto kept = [lost](Index j) { return !lost(j); };
    add(before + (right_.spec.is_centred ? "mean and variance" : "the mean square") + after).in_mean = kept;
    all_.back().in_variance = kept;
    if (!right_.spec.is_centred) return;
    all_.push_back(all_.back());
    all_.back().name += ", less the mean squared";
    all_.back().is_one_pass = true;
    add(before + "the mean" + after).in_mean = kept;
  }
  void narrow_sums(Index lanes, Index vector, DType narrow) {
    const std::string threads = " of each of " + std::to_string(lanes) + " threads" +
                                (vector == 1 ? "" : ", " + std::to_string(vector) + " columns at a time,") +
                                in_format(narrow);
    const auto with = [&](const std::string& name) -> NormVariant& {
      NormVariant& v = add(name);
      v.lanes = lanes, v.vector = vector;
      v.change = [narrow](NormStage stage, double x) {
        return stage == NormStage::running_sum ? round_to(x, narrow) : x;
      };
      return v;
    };
    with("the sum of x" + threads).rounds_x_only = true;
    with("the sums of x and of squares" + threads);
    with("the sums of x and of squares" + threads + ", less the mean squared").is_one_pass = true;
  }

  NormVariant right_;
  DType compute_;
  std::vector<NormVariant> all_;
};

}  // namespace

std::vector<NormVariant> NormProblem::lost_parts(std::span<const Expected> expected) const {
  const Index width = norm_.in.width();
  const auto wrong = [&](std::string_view output) -> const Expected* {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_wrong_elements(*e) ? &*e : nullptr;
  };
  const Expected *mean = wrong("mean"), *rstd = wrong("rstd"), *y = wrong("y");
  const Expected* known = mean ? mean : rstd ? rstd : y;
  if (!known || norm_.in.rstd || norm_.in.mean) return {};
  // Of RMSNorm, and of a variance alone, other parts have names.
  LostParts parts(norm_.spec, norm_.in, norm_.contract.compute);
  parts.of_shuffles();
  if (norm_.spec.is_centred) {
    parts.of_warps();
    parts.of_tails();
    parts.narrow();
  }
  // Guesses that a few wrong rows deny are not asked what all of them would be.
  const std::vector<Index> rows = wrong_rows(*known, known == y ? width : 1, asked);
  Array<double, 1> values({width});
  const auto agrees = [&](const NormVariant& variant, Index i) {
    const NormStages kernel(variant, norm_.dy);
    const NormStages::Statistics s = kernel.statistics(i);
    const auto has = [&](const Expected* e, double value) {
      if (!e) return true;
      const double off = e->dumped->values[i] - value, error = e->dumped->values[i] - e->value[i];
      return off * off <= most_left * error * error || within_bound(*e, i, e->dumped->values[i]);
    };
    if (!has(mean, s.mean) || !has(rstd, s.rstd)) return false;
    if (!y) return true;
    kernel.row(i, s, values.view(), {});
    double before = 0, after = 0;
    for (Index j = 0; j < width; ++j) {
      const Index at = i * width + j;
      const double got = y->dumped->values[at], value = round_to(values(j), y->dtype);
      if (within_bound(*y, at, got)) continue;
      before += (got - y->value[at]) * (got - y->value[at]), after += (got - value) * (got - value);
    }
    return after <= most_left * before;
  };
  std::vector<NormVariant> all;
  for (const NormVariant& variant : parts.all())
    if (std::ranges::all_of(rows, [&](Index i) { return agrees(variant, i); })) all.push_back(variant);
  return all;
}

}  // namespace attest
