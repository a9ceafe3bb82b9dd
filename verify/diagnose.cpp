// What would explain an output that failed.
#include "verify/diagnose.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <optional>

#include "verify/compare.hpp"
#include "verify/explained_spread.hpp"
#include "verify/narrow_stores.hpp"

namespace attest {
namespace {

constexpr double least_confidence = 0.7;
constexpr std::size_t most_entries = 3;

/// Fewer elements than this have the value of a wrong answer by chance.
constexpr Index least_votes = 3;

bool is_gradient(const std::string& output) {
  return output.starts_with('d');
}

/// What an answer says of the elements of the dump, by output.
struct Votes {
  struct Count {
    Index wrong = 0, explained = 0;  // wrong elements, and those that have the value of the answer
    Index right = 0, denied = 0;     // right ones, and those that should be wrong
  };
  std::map<std::string, Count> of;
  Index needed = 1;  // explained elements, to count at all
  bool is_of_whole_call = false;

  double denied_share() const {
    Count all;
    for (const auto& [output, count] : of) all.right += count.right, all.denied += count.denied;
    return static_cast<double>(all.denied) / static_cast<double>(std::max<Index>(all.right, 1));
  }
  bool explains_every_output() const {
    return std::ranges::all_of(of, [](const auto& x) {
      return static_cast<double>(x.second.explained) >=
             least_confidence * static_cast<double>(x.second.wrong);
    });
  }
  /// Gradients of a wrong forward pass may be wrong by that alone.
  double confidence() const { return is_contradicted() ? 0 : std::max(share(true), share(false)); }

 private:
  /// An answer of the whole call that says why a forward output is wrong cannot be wrong about another one.
  bool is_contradicted() const {
    const auto is_forward_and = [](auto statement) {
      return [statement](const auto& x) { return !is_gradient(x.first) && statement(x.second); };
    };
    return is_of_whole_call &&
           std::ranges::any_of(of, is_forward_and([](const Count& c) { return c.wrong > 0; })) &&
           std::ranges::any_of(
               of, is_forward_and([](const Count& c) { return c.wrong == 0 && 2 * c.denied > c.right; }));
  }
  double share(bool with_gradients) const {
    Index explained = 0, all = 0;
    for (const auto& [output, count] : of) {
      if (count.wrong == 0 || (is_gradient(output) && !with_gradients)) continue;
      explained += count.explained;
      all += count.wrong + (is_of_whole_call ? count.denied : 0);
    }
    return explained < needed ? 0 : static_cast<double>(explained) / static_cast<double>(all);
  }
};

/// A single element of all outputs is wrong, finite, and stands out.
std::optional<DiagnosisEntry> one_element(std::span<const Expected> expected) {
  constexpr double least_gap = 1.3;
  const Expected* where = nullptr;
  double worst = 0;
  for (const Expected& e : expected) {
    for (Index at = 0; at < e.dumped->size(); ++at) {
      const double got = e.dumped->values[at];
      if (within_bound(e, at, got)) continue;
      if (where || e.dumped->size() == 1 || !std::isfinite(got)) return {};
      where = &e, worst = std::abs(got - e.value[at]) / e.bound(at);
    }
  }
  if (!where) return {};
  for (Index at = 0; at < where->dumped->size(); ++at) {
    const double got = where->dumped->values[at];
    if (within_bound(*where, at, got) &&
        std::abs(got - where->value[at]) * least_gap > worst * where->bound(at))
      return {};
  }
  return DiagnosisEntry{"one element alone, as a flipped bit or a race leaves it", 0.9,
                        "all others of " + where->output + " and of the other outputs are right"};
}

/// Bounds are those of the right answer; that of another grows with its size.
bool is_close_to(const Expected& expected, Index at, double answer) {
  const double got = expected.dumped->values[at], want = expected.value[at];
  if (within_bound(expected, at, answer)) return false;  // not to be told from the right answer
  if (got == answer || (std::isnan(got) && std::isnan(answer))) return true;
  const double growth = want == 0 ? 1 : std::max(1.0, std::abs(answer / want)), off = std::abs(got - answer);
  // Beside an error of hardly more than the bound, many answers are within the bound by chance.
  return off <= growth * expected.bound(at) + 2 * ulp(std::abs(answer), expected.dtype) &&
         2 * off <= std::abs(got - want) + 2 * ulp(std::abs(answer), expected.dtype);
}

/// Of answers that are not of the whole call, right elements say little: a fault may be in one head only.
void vote(Votes& votes, const Expected& expected, Index at, double answer) {
  Votes::Count& count = votes.of[expected.output];
  const double got = expected.dumped->values[at];
  if (within_bound(expected, at, got)) {
    ++count.right;
    count.denied += !within_bound(expected, at, answer) && !(std::abs(got - answer) <= expected.bound(at));
  } else {
    ++count.wrong;
    count.explained += is_close_to(expected, at, answer);
  }
}

void votes_of(const Decoy& answer, const Expected& expected, Votes& votes) {
  votes.needed = std::min(least_votes, static_cast<Index>(expected.value.size()));
  votes.is_of_whole_call = answer.is_of_whole_call;
  // As it would have been stored: an error may be less than its rounding.
  for (std::size_t n = 0; n < answer.at.size(); ++n)
    vote(votes, expected, answer.at[n], round_to(answer.value[n], expected.dtype));
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
  for (const auto& [output, count] : votes.of)
    if (count.explained > 0)
      evidence +=
          (evidence.empty() ? "" : ", ") + std::to_string(count.explained) + " wrong elements of " + output;
  return {cause, votes.confidence(), evidence + " have that value"};
}

}  // namespace

double explained_share(const Expected& expected, const Decoy& answer) {
  Votes votes;
  votes_of(answer, expected, votes);
  return votes.confidence();
}

std::vector<DiagnosisEntry> diagnose(std::span<const Expected> expected, std::span<const Decoy> answers,
                                     const std::vector<DiagnosisEntry>& fitted) {
  std::map<std::string, Votes> votes;
  for (const Decoy& answer : answers) {
    const auto e = std::ranges::find(expected, answer.output, &Expected::output);
    if (e == expected.end()) continue;
    votes_of(answer, *e, votes[answer.name]);
  }
  for (const Expected& e : expected) {
    for (Index at = 0; at < e.dumped->size(); ++at) {
      const double got = e.dumped->values[at];
      if (within_bound(e, at, got)) continue;
      for (const auto& [name, fits] :
           {std::pair{"zeros, or nothing written", got == 0}, std::pair{"NaN", std::isnan(got)},
            std::pair{"infinity", std::isinf(got)}}) {
        Votes::Count& count = votes[name].of[e.output];
        ++count.wrong;
        count.explained += fits;
      }
    }
  }

  std::vector<DiagnosisEntry> all;
  // Of answers that say the same of what is wrong, those come first that leave no output unexplained, then
  // those that deny least of what is right.
  std::vector<const std::pair<const std::string, Votes>*> likely;
  for (const auto& x : votes)
    if (x.second.confidence() >= least_confidence) likely.push_back(&x);
  std::ranges::stable_sort(likely, {}, [](const auto* x) {
    return std::pair{!x->second.explains_every_output(), x->second.denied_share()};
  });
  for (const auto* x : likely) all.push_back(entry_of(x->first, x->second));
  if (const auto alone = one_element(expected)) all.push_back(*alone);
  all.insert(all.end(), fitted.begin(), fitted.end());
  std::ranges::move(explained_spread(expected, answers), std::back_inserter(all));
  std::ranges::move(narrow_stores(expected), std::back_inserter(all));
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
