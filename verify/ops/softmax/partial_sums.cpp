// Sums over the columns of a row that lack columns at equal distances, or round the parts of warps: what the
// row sums, and the sums of dy y, that the outputs imply agree with.
#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "verify/ops/softmax/problem.hpp"
#include "verify/ops/softmax/stages.hpp"
#include "verify/ops/stages.hpp"

namespace attest {
namespace {

using Values = std::vector<double>;

constexpr Index warp = 32, most_warps = 32, most_vector = 8, most_threads = 1024, longest_tile = 8192;

/// A single row agrees with one of so many candidates by chance.
constexpr std::size_t least_rows = 3;

/// What the kernel added up in one row: the terms, their right sum, and the sum that its outputs imply.
struct Sum {
  Index row;
  Values terms;
  double right, implied, tolerance;

  bool agrees(double sum) const { return std::abs(sum - implied) <= tolerance; }
};

struct NamedSums {
  std::string name;
  std::function<double(Index row)> sum;
};

/// Columns at equal distances, all but the last or first of them, missing or there twice.
std::vector<NamedSums> periodic(const std::vector<Sum>& sums, Index width, const std::string& of,
                                const std::function<Values(Index row)>& terms_of) {
  std::vector<NamedSums> all;
  // Tiles are powers of 2, but the warps of a block need not be.
  std::vector<Index> periods;
  for (Index period = 2; period < warp; period = period < 8 ? period + 1 : 2 * period)
    periods.push_back(period);
  for (Index period = warp; period < most_threads; period += warp) periods.push_back(period);
  for (Index period = most_threads; period <= longest_tile; period *= 2) periods.push_back(period);
  for (const Index period : periods) {
    for (Index residue = 0; 2 * period <= width && residue < period; ++residue) {
      const Index count = (width - residue + period - 1) / period;
      const auto sum_of_all = [=](const Values& terms) {
        double sum = 0;
        for (Index j = residue; j < width; j += period) sum += terms[j];
        return sum;
      };
      const double of_first_row = sum_of_all(sums.front().terms);
      for (const Index first : {0, 1}) {
        for (const Index last : {count - 1, count}) {
          if (last - first < 2 || (first == 1 && last < count)) continue;
          for (const double sign : {-1.0, 1.0}) {
            const auto changed = [=](const Values& terms, double right, double all_of_them) {
              double lost = all_of_them;
              if (first == 1) lost -= terms[residue];
              if (last < count) lost -= terms[residue + last * period];
              return right + sign * lost;
            };
            const Sum& front = sums.front();
            if (!front.agrees(changed(front.terms, front.right, of_first_row))) continue;
            const bool agrees = std::ranges::all_of(sums, [&](const Sum& sum) {
              return sum.agrees(changed(sum.terms, sum.right, sum_of_all(sum.terms)));
            });
            if (!agrees) continue;
            const Index begin = residue + first * period;
            std::string name = "columns " + std::to_string(begin) + ", " + std::to_string(begin + period);
            if (last - first > 2)
              name += (last - first == 3 ? ", " : " ... ") + std::to_string(residue + (last - 1) * period);
            name += (sign < 0 ? " missing in " : " counted twice in ") + of;
            all.push_back({name, [=](Index row) {
                             const Values terms = terms_of(row);
                             double right = 0;
                             for (const double term : terms) right += term;
                             return changed(terms, right, sum_of_all(terms));
                           }});
          }
        }
      }
    }
  }
  return all;
}

/// Parts of warps, rounded before they are added up.
std::vector<NamedSums> rounded_parts(const std::vector<Sum>& sums, Index width, const std::string& of,
                                     DType compute, const std::function<Values(Index row)>& terms_of) {
  std::vector<NamedSums> all;
  for (Index vector = 1; vector <= most_vector; vector *= 2) {
    for (Index warps = 2; warps <= most_warps && (warps - 1) * warp * vector < width; warps *= 2) {
      for (const DType narrow : narrow_formats(compute)) {
        const auto rounded = [=](const Values& terms) {
          Values parts(warps);
          for (Index j = 0; j < width; ++j) parts[j / (warp * vector) % warps] += terms[j];
          double sum = 0;
          for (const double part : parts) sum += round_to(part, narrow);
          return sum;
        };
        if (!std::ranges::all_of(sums, [&](const Sum& sum) { return sum.agrees(rounded(sum.terms)); }))
          continue;
        all.push_back({"parts of " + of + " of each of " + std::to_string(warps) + " warps" +
                           (vector == 1 ? "" : ", " + std::to_string(vector) + " columns a thread,") +
                           in_format(narrow),
                       [=](Index row) { return rounded(terms_of(row)); }});
      }
    }
  }
  return all;
}

}  // namespace

std::vector<Decoy> SoftmaxProblem::partial_sums(const std::vector<Index>& some_rows) const {
  std::vector<Decoy> all;
  const SoftmaxVariant right{"", spec_};
  const auto take = [&](std::vector<Decoy> more) { std::ranges::move(more, std::back_inserter(all)); };
  const auto terms_of = [&](Index row) {
    SoftmaxRow r = computed(right, row);
    for (double& y : r.y) y *= r.l;
    return r.l > 0 ? r.y : Values(n_);
  };

  std::vector<Sum> sums;
  for (const Index row : some_rows) {
    const SoftmaxRow r = computed(right, row);
    if (const auto sum = implied_sum(r, row))
      sums.push_back({row, terms_of(row), r.l, sum->value, sum->tolerance});
  }
  const auto add_sums = [&](const std::vector<NamedSums>& named) {
    for (const NamedSums& of : named)
      take(answers(of.name, "", true, some_rows,
                   [&](Index row) { return computed(right, row, of.sum(row)); }));
  };
  if (sums.size() >= least_rows) {
    add_sums(periodic(sums, n_, "the row sum", terms_of));
    add_sums(rounded_parts(sums, n_, "the row sum", compute_, terms_of));
    take(parts_of_other_rows(some_rows));
  }

  const Tensor* given_dy = case_.input("dy");
  if (!given_dy || !case_.output("dx")) return all;
  const auto products_of = [&](Index row) {
    Values y = computed(right, row).y;
    y.resize(n_);
    const Values dy = row_of(like_x(given_dy->values.data()), row);
    for (Index j = 0; j < n_; ++j) y[j] *= dy[j];
    return y;
  };
  std::vector<Sum> dots;
  for (const Index row : some_rows) {
    const SoftmaxRow r = computed(right, row);
    if (const auto dot = implied_dot(r, row, {}))
      dots.push_back({row, products_of(row), dot->right, dot->value, dot->tolerance});
  }
  if (dots.size() >= least_rows) {
    const auto add_dots = [&](const std::vector<NamedSums>& named) {
      for (const NamedSums& of : named) {
        take(answers(of.name, "dx", false, some_rows, [&](Index row) {
          SoftmaxVariant variant = right;
          variant.change = [dot_of_row = of.sum(row)](SoftmaxStage stage, double value) {
            return stage == SoftmaxStage::dot ? dot_of_row : value;
          };
          return computed(variant, row);
        }));
      }
    };
    add_dots(periodic(dots, n_, "the sum of dy y", products_of));
    add_dots(rounded_parts(dots, n_, "the sum of dy y", compute_, products_of));
  }
  take(dots_of_other_rows(some_rows));
  return all;
}

}  // namespace attest
