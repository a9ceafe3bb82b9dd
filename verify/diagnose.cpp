// What would explain an output that failed.
#include "verify/diagnose.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "verify/compare.hpp"

namespace attest {
namespace {

constexpr double least_confidence = 0.7;
constexpr std::size_t most_entries = 3;

/// Fewer elements than this have the value of a wrong answer by chance.
constexpr Index least_votes = 3;

/// Wrong elements that an answer explains, and others.
struct Votes {
  Index speak_for = 0, against = 0;
  std::map<std::string, Index> wrong_in;  // output: elements that the answer explains
  Index needed = 1;                       // to count at all
  Index right = 0, denied = 0;            // right elements, and those that the answer says are wrong

  double denied_share() const {
    return static_cast<double>(denied) / static_cast<double>(std::max<Index>(right, 1));
  }
  double confidence() const {
    return speak_for < needed ? 0 : static_cast<double>(speak_for) / static_cast<double>(speak_for + against);
  }
};

/// A single element of all outputs is wrong, and finite.
std::optional<DiagnosisEntry> one_element(std::span<const Expected> expected) {
  const Expected* where = nullptr;
  for (const Expected& e : expected) {
    for (Index at = 0; at < e.dumped->size(); ++at) {
      if (within_bound(e, at, e.dumped->values[at])) continue;
      if (where || e.dumped->size() == 1 || !std::isfinite(e.dumped->values[at])) return {};
      where = &e;
    }
  }
  if (!where) return {};
  return DiagnosisEntry{"one element alone, as a flipped bit or a race leaves it", 0.9,
                        "all others of " + where->output + " and of the other outputs are right"};
}

/// Bounds are those of the right answer; that of another grows with its size.
bool is_close_to(const Expected& expected, Index at, double answer) {
  const double got = expected.dumped->values[at], want = expected.value[at];
  if (within_bound(expected, at, answer)) return false;  // not to be told from the right answer
  if (got == answer || (std::isnan(got) && std::isnan(answer))) return true;
  const double growth = want == 0 ? 1 : std::max(1.0, std::abs(answer / want));
  return std::abs(got - answer) <= growth * expected.bound(at) + 2 * ulp(std::abs(answer), expected.dtype);
}

/// Right elements say nothing: a fault may be in one head only.
void vote(Votes& votes, const Expected& expected, bool fits) {
  ++(fits ? votes.speak_for : votes.against);
  if (fits) ++votes.wrong_in[expected.output];
}

/// Values are too small altogether, and most errors below a unit in the last place point towards zero.
std::optional<DiagnosisEntry> truncation(const Expected& e) {
  const bool are_too_small = std::ranges::any_of(
      statistics(e), [](const Statistic& s) { return s.name == "gain" && s.value < 0 && s.exceeds(); });
  if (!are_too_small) return {};
  Index small = 0, towards_zero = 0;
  for (Index at = 0; at < e.dumped->size(); ++at) {
    const double got = e.dumped->values[at], want = e.value[at], error = std::abs(got - want);
    if (!(error > e.value_error[at] && error < ulp(std::abs(want), e.dtype))) continue;
    ++small;
    towards_zero += std::abs(got) < std::abs(want);
  }
  const double share = static_cast<double>(towards_zero) / static_cast<double>(std::max<Index>(small, 1));
  if (2 * small < e.dumped->size() || share < least_confidence) return {};
  return DiagnosisEntry{e.output + " cut off instead of rounded", share,
                        std::to_string(towards_zero) + " of " + std::to_string(small) +
                            " elements are too small, by less than a unit in the last place"};
}

DiagnosisEntry entry_of(const std::string& cause, const Votes& votes) {
  std::string evidence;
  for (const auto& [output, count] : votes.wrong_in)
    evidence += (evidence.empty() ? "" : ", ") + std::to_string(count) + " wrong elements of " + output;
  return {cause, votes.confidence(), evidence + " have that value"};
}

}  // namespace

std::vector<DiagnosisEntry> diagnose(std::span<const Expected> expected, std::span<const Decoy> answers,
                                     const std::vector<DiagnosisEntry>& fitted) {
  std::map<std::string, Votes> votes;
  for (const Decoy& answer : answers) {
    const auto e = std::ranges::find(expected, answer.output, &Expected::output);
    if (e == expected.end()) continue;
    Votes& of_name = votes[answer.name];
    of_name.needed = std::min(least_votes, static_cast<Index>(e->value.size()));
    for (std::size_t n = 0; n < answer.at.size(); ++n) {
      const Index at = answer.at[n];
      if (within_bound(*e, at, e->dumped->values[at])) {
        ++of_name.right;
        of_name.denied += !within_bound(*e, at, answer.value[n]);
        continue;
      }
      vote(of_name, *e, is_close_to(*e, at, answer.value[n]));
    }
  }
  for (const Expected& e : expected) {
    for (Index at = 0; at < e.dumped->size(); ++at) {
      const double got = e.dumped->values[at];
      if (within_bound(e, at, got)) continue;
      for (const auto& [name, fits] :
           {std::pair{"zeros, or nothing written", got == 0}, std::pair{"NaN", std::isnan(got)},
            std::pair{"infinity", std::isinf(got)}}) {
        vote(votes[name], e, fits);
      }
    }
  }

  std::vector<DiagnosisEntry> all;
  // Of answers that say the same of what is wrong, the one that denies least of what is right comes first.
  std::vector<std::pair<double, const std::pair<const std::string, Votes>*>> by_denied;
  for (const auto& x : votes) by_denied.emplace_back(x.second.denied_share(), &x);
  std::ranges::stable_sort(by_denied, {}, &decltype(by_denied)::value_type::first);
  for (const auto& [denied, x] : by_denied)
    if (x->second.confidence() >= least_confidence) all.push_back(entry_of(x->first, x->second));
  if (const auto alone = one_element(expected)) all.push_back(*alone);
  all.insert(all.end(), fitted.begin(), fitted.end());
  for (const Expected& e : expected)
    if (const auto truncated = truncation(e)) all.push_back(*truncated);
  // Elements that have the very value of an answer are better evidence than a fit as good.
  std::ranges::stable_sort(all, std::greater{},
                           [](const DiagnosisEntry& x) { return std::min(x.confidence, 0.95); });
  for (std::size_t n = 0; n < all.size(); ++n) {
    const auto next = all.begin() + static_cast<std::ptrdiff_t>(n) + 1;
    const auto same = std::remove_if(
        next, all.end(), [&, cause = all[n].cause](const DiagnosisEntry& x) { return x.cause == cause; });
    all.erase(same, all.end());
  }
  // What is only a place to look at is of no use beside a cause.
  if (!all.empty() && all.front().confidence >= least_confidence)
    std::erase_if(all, [](const DiagnosisEntry& x) { return x.confidence < least_confidence; });
  if (all.size() > most_entries) all.resize(most_entries);
  return all;
}

}  // namespace attest
