// Sums over rows or columns from which a faulty kernel has lost some, or counted them twice.
#include "verify/ops/lost_terms.hpp"

#include <utility>

namespace attest {
namespace {

/// What terms have to explain of the squared errors.
constexpr double least_explained = 0.9;

/// The term that explains most of the squared errors, with a weight off by x.
struct WrongTerm {
  Index place = 0;
  double x = 0, explained = 0;
};

WrongTerm best_term(const WeightedSum& sum) {
  WrongTerm best;
  for (const Term& term : sum.terms) {
    double rr = 0, rd = 0, dd = 0;
    for (Index e = 0; e < sum.width(); ++e) {
      const double r = sum.got[e] - sum.exact[e], d = term.vector[e];
      rr += r * r, rd += r * d, dd += d * d;
    }
    if (dd > 0 && rr > 0 && rd * rd > best.explained * dd * rr)
      best = {term.place, rd / dd, rd * rd / (dd * rr)};
  }
  return best;
}

}  // namespace

std::optional<DiagnosisEntry> lost_or_doubled(const WeightedSum& sum, const std::string& what,
                                              const std::string& of) {
  if (sum.width() < least_elements_of_sums) return {};
  const auto entry = [&](const std::string& terms, double explained, const char* how) {
    return DiagnosisEntry{what + terms + how + of, explained,
                          "explains " + percent(explained) + " of the squared errors"};
  };
  const WrongTerm term = best_term(sum);
  const WrongRange range = best_range({&sum, 1}, false);
  for (const auto& [x, how] : {std::pair{-1.0, " missing in "}, std::pair{1.0, " twice in "}}) {
    if (term.explained >= least_explained && all_near({term.x}, x))
      return entry(" " + std::to_string(term.place), term.explained, how);
    if (range.explained >= least_explained && !range.spans_all(sum.places) && range.changes_by(x))
      return entry("s " + std::to_string(range.first) + ".." + std::to_string(range.last - 1),
                   range.explained, how);
  }
  return {};
}

}  // namespace attest
