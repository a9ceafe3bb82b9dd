// Where a normalisation errs if nothing explains how: in which of its sums.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "verify/compare.hpp"
#include "verify/diagnosis/diagnose.hpp"
#include "verify/ops/norm/problem.hpp"

namespace attest {
namespace {

/// What a factor for each row has to explain of the squared errors of y.
constexpr double least_explained = 0.7;

/// The elements of a gradient that have to be a number times what they should be.
constexpr double least_multiplied = 0.9;

/// The share of the squared errors of y, in rows with a wrong element, that goes if every row of y without
/// its bias is off by a factor, as it is where its rstd is wrong.
double explained_by_factors(const Expected& y, const NormInputs& in) {
  const Index width = in.width();
  double before = 0, after = 0;
  for (Index i = 0; i < in.rows(); ++i) {
    bool is_wrong = false;
    double rr = 0, rd = 0, dd = 0;
    for (Index j = 0; j < width; ++j) {
      const Index at = i * width + j;
      const double d = y.value[at] - (in.bias ? in.bias(j) : 0), r = y.dumped->values[at] - y.value[at];
      is_wrong |= !within_bound(y, at, y.dumped->values[at]);
      rr += r * r, rd += r * d, dd += d * d;
    }
    if (!is_wrong || !std::isfinite(rr) || !(dd > 0)) continue;
    before += rr;
    after += rr - rd * rd / dd;
  }
  // One number is fitted to each row.
  return before > 0 ? 1 - after / before * static_cast<double>(width) / static_cast<double>(width - 1) : 0;
}

}  // namespace

std::vector<DiagnosisEntry> NormProblem::explanations(std::span<const Expected> expected) const {
  // Rows could be missing or twice in many ways that would leave about as much of every sum.
  const std::vector<Decoy> multiplied = multiplied_gradients(expected);
  const bool are_multiplied = std::ranges::any_of(multiplied, [&](const Decoy& answer) {
    const auto e = std::ranges::find(expected, answer.output, &Expected::output);
    return explained_share(*e, answer) >= least_multiplied;
  });
  std::vector<DiagnosisEntry> all;
  if (!are_multiplied) all = lost_rows(expected);
  // What is next to each other has its own, shorter name.
  if (!are_multiplied && all.empty()) all = wrong_rows_of_chunks(expected);
  std::ranges::move(lost_columns(expected), std::back_inserter(all));
  std::ranges::move(wrong_sums_of_warps(expected), std::back_inserter(all));
  std::ranges::move(one_pass(expected), std::back_inserter(all));
  std::map<std::string, const Expected*> wrong;
  for (const Expected& e : expected)
    if (has_wrong_elements(e)) wrong[e.output] = &e;
  const auto is_place = [&](const std::string& where, const std::string& evidence) {
    all.push_back({where, confidence_of_a_place, evidence});
  };
  const std::string squares = norm_.spec.is_centred ? "rstd, or the variance that it is made of"
                                                    : "rstd, or the mean square that it is made of";
  if (wrong.contains("mean")) {
    is_place("the mean of a row", "out/mean is wrong");
  } else if (wrong.contains("rstd")) {
    is_place(squares, "out/rstd is wrong");
  } else if (wrong.contains("y") && norm_.in.width() > 1) {
    if (explained_by_factors(*wrong.at("y"), norm_.in) >= least_explained)
      is_place(squares, "most errors of y go if each of its rows is multiplied by a number");
  } else {
    std::erase_if(wrong, [](const auto& x) { return x.first != "dweight" && x.first != "dbias"; });
    const bool only_sums_fail = std::ranges::none_of(
        expected, [&](const Expected& e) { return has_wrong_elements(e) && !wrong.contains(e.output); });
    for (const auto& [output, e] : wrong)
      if (only_sums_fail) is_place("the sum over rows that " + output + " is", "all other outputs are right");
  }
  return all;
}

}  // namespace attest
