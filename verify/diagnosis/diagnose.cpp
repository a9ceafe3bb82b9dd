// What would explain an output that failed.
#include "verify/diagnosis/diagnose.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "verify/compare.hpp"
#include "verify/diagnosis/explained_spread.hpp"
#include "verify/diagnosis/held_place.hpp"
#include "verify/diagnosis/narrow_stores.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr double least_confidence = 0.7;
constexpr std::size_t most_entries = 3;

/// Of an answer that makes right elements wrong, nobody knows where.
constexpr double most_if_denied = 0.9;

/// Of an answer that explains nothing of a wrong forward output that it speaks of.
constexpr double most_if_refuted = 0.85;

/// Fewer elements than this have the value of a wrong answer by chance.
constexpr Index least_votes = 3;

/// Where hardly an error is as many bounds: what an answer has to explain, and how many elements for each
/// right one that it denies.
constexpr double bounds_of_bold = 4, least_if_faint = 0.9;
constexpr Index most_denied_if_faint = 4;

bool is_gradient(const std::string& output) {
  return output.starts_with('d');
}

/// What an answer says of the elements of the dump, by output.
struct Votes {
  struct Count {
    Index wrong = 0, explained = 0;  // wrong elements, and those that have the value of the answer
    Index gross = 0;                 // explained ones that no rounding could have explained
    Index bold = 0;                  // explained ones whose errors are well beyond the bound
    Index right = 0, denied = 0;     // right ones, and those that should be wrong
  };
  std::map<std::string, Count> of;
  Index needed = 1;  // explained elements, to count at all
  bool is_of_whole_call = false;
  bool is_computed = false;  // not a number that fills one output or more

  double denied_share() const {
    Count all;
    for (const auto& [output, count] : of) all.right += count.right, all.denied += count.denied;
    return static_cast<double>(all.denied) / static_cast<double>(std::max<Index>(all.right, 1));
  }
  bool explains_every_output() const {
    return std::ranges::all_of(of, [](const auto& x) { return explains(x.second); });
  }
  /// The elements of another output, were they many more, would outvote these.
  bool is_refuted_by_an_output() const {
    return is_computed && std::ranges::any_of(of, [this](const auto& x) {
             return !is_gradient(x.first) && x.second.wrong >= needed && x.second.explained == 0;
           });
  }
  Count of_explained_outputs() const {
    Count all;
    for (const auto& [output, count] : of)
      if (count.wrong > 0 && explains(count)) all.explained += count.explained, all.denied += count.denied;
    return all;
  }
  /// Gradients of a wrong forward pass may be wrong by that alone.
  double confidence() const {
    if (is_contradicted() || is_chance()) return 0;
    const double explained = std::max(share(true), share(false));
    return is_faint() && explained < least_if_faint ? 0 : explained;
  }

 private:
  static bool explains(const Count& count) {
    return static_cast<double>(count.explained) >= least_confidence * static_cast<double>(count.wrong);
  }
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
  /// Errors of a unit or two in the last place: many values are as near, and without right elements that
  /// speak for it, an answer may be any of them.
  bool is_chance() const {
    constexpr double least_gross = 0.1;
    Count all;
    for (const auto& [output, count] : of) {
      if (count.wrong == 0) continue;
      all.explained += count.explained, all.gross += count.gross;
      all.right += count.right, all.denied += count.denied;
    }
    const bool is_rounding =
        (all.right == 0 || 2 * all.denied > all.explained) &&
        static_cast<double>(all.gross) < least_gross * static_cast<double>(all.explained);
    return !is_of_whole_call &&
           (is_rounding || (is_faint() && all.denied * most_denied_if_faint > all.explained));
  }
  /// Hardly an error is well beyond its bound: an answer that is about as far off may be of any other cause,
  /// and that of a right one has nearly all wrong elements and none of the right ones.
  bool is_faint() const {
    constexpr double least_bold = 0.1;
    Count all;
    for (const auto& [output, count] : of) all.explained += count.explained, all.bold += count.bold;
    return static_cast<double>(all.bold) < least_bold * static_cast<double>(all.explained);
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

/// The value itself would be wrong where the dump is right.
bool is_denied(const Expected& expected, Index at, double answer) {
  const double got = expected.dumped->values[at];
  return !within_bound(expected, at, answer) && !(std::abs(got - answer) <= expected.bound(at));
}

/// Of answers that are not of the whole call, right elements say where it holds: a fault may be in one head.
void vote(Votes& votes, const Expected& expected, Index at, double answer) {
  Votes::Count& count = votes.of[expected.output];
  const double got = expected.dumped->values[at];
  if (within_bound(expected, at, got)) {
    ++count.right;
    count.denied += is_denied(expected, at, answer);
  } else {
    ++count.wrong;
    const bool is_explained = is_close_to(expected, at, answer);
    constexpr double most_ulps = 2;
    count.explained += is_explained;
    count.bold +=
        is_explained && !(std::abs(got - expected.value[at]) <= bounds_of_bold * expected.bound(at));
    count.gross += is_explained && !(std::abs(got - expected.value[at]) <=
                                     most_ulps * ulp(std::abs(expected.value[at]), expected.dtype));
  }
}

void votes_of(const Decoy& answer, const Expected& expected, Votes& votes) {
  votes.needed = std::min(least_votes, static_cast<Index>(expected.value.size()));
  votes.is_of_whole_call = answer.is_of_whole_call;
  votes.is_computed = true;
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

/// Right elements that an answer makes wrong, over wrong ones that it explains: more is not chance.
constexpr double most_denied = 0.05;

bool is_held_against(Index denied, Index explained) {
  return static_cast<double>(denied) > most_denied * static_cast<double>(explained);
}

/// Where the answers of that name hold: in the same place of every output that they explain; "" if they hold
/// in none.
std::string place_of(const std::string& name, std::span<const Expected> expected,
                     std::span<const Decoy> answers, const AxesOf& axes_of) {
  std::string place;
  for (const Expected& e : expected) {
    std::vector<Index> explained, denied;
    for (const Decoy& answer : answers) {
      if (answer.name != name || answer.output != e.output) continue;
      for (std::size_t n = 0; n < answer.at.size(); ++n) {
        const Index at = answer.at[n];
        const double value = round_to(answer.value[n], e.dtype);
        if (!within_bound(e, at, e.dumped->values[at])) {
          if (is_close_to(e, at, value)) explained.push_back(at);
        } else if (is_denied(e, at, value)) {
          denied.push_back(at);
        }
      }
    }
    if (explained.empty()) continue;
    const std::string own = held_place(explained, denied, axes_of(e.output), most_denied);
    if (own.empty() || (!place.empty() && own != place)) return "";
    place = own;
  }
  return place;
}

/// Nearly every element whose bits before the store are known is what is left if they are cut off: of those
/// that are rounded, half are.
std::optional<DiagnosisEntry> exact_truncation(const Expected& e) {
  constexpr double nearly_all = 0.98, known_bits = 0.125;
  constexpr Index fewest = 32;
  if (!has_wrong_elements(e)) return {};
  Index known = 0, cut = 0;
  for (Index at = 0; at < e.dumped->size(); ++at) {
    const double got = e.dumped->values[at], want = e.value[at], spacing = ulp(std::abs(want), e.dtype);
    const double before_store = std::max(0.0, e.rigorous[at] + e.value_error[at] - spacing / 2);
    // Nor would it explain more.
    if (!within_bound(e, at, got) && !(std::abs(got - want) <= spacing + before_store)) return {};
    const double below = round_to(want, e.dtype, Rounding::toward_zero), over = std::abs(want - below);
    const bool is_known = before_store <= known_bits * spacing && before_store < over &&
                          over < spacing - before_store && std::isfinite(want);
    if (!is_known) continue;
    ++known;
    cut += got == below;
  }
  const double share = static_cast<double>(cut) / static_cast<double>(std::max<Index>(known, 1));
  if (known < fewest || share < nearly_all) return {};
  return DiagnosisEntry{
      e.output + " cut off instead of rounded", share,
      std::to_string(cut) + " of " + std::to_string(known) + " elements are the next number towards zero"};
}

/// The finite number but 0 that most wrong elements of an output are, whatever they should be: memory that
/// was filled with it, and not written since.
std::optional<double> constant_of(const Expected& e) {
  constexpr Index fewest = 16;
  // The majority vote of Boyer and Moore (1991).
  double constant = 0;
  Index lead = 0;
  for (Index at = 0; at < e.dumped->size(); ++at) {
    const double got = e.dumped->values[at];
    if (within_bound(e, at, got)) continue;
    if (lead == 0) constant = got;
    lead += got == constant ? 1 : -1;
  }
  const double largest = format_of(e.dtype).max;
  if (!std::isfinite(constant) || constant == 0 || std::abs(constant) == largest) return {};
  std::set<double> wanted;
  for (Index at = 0; at < e.dumped->size() && std::ssize(wanted) < fewest; ++at) {
    const double got = e.dumped->values[at];
    if (got == constant && !within_bound(e, at, got)) wanted.insert(e.value[at]);
  }
  return std::ssize(wanted) < fewest ? std::nullopt : std::optional(constant);
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

bool denies_right_elements(const Expected& expected, const Decoy& answer) {
  Votes votes;
  votes_of(answer, expected, votes);
  const Votes::Count& count = votes.of[expected.output];
  return is_held_against(count.denied, count.explained);
}

double explained_share(const Expected& expected, const Decoy& answer) {
  Votes votes;
  votes_of(answer, expected, votes);
  return votes.confidence();
}

std::vector<DiagnosisEntry> diagnose(std::span<const Expected> expected, std::span<const Decoy> answers,
                                     const std::vector<DiagnosisEntry>& fitted, const AxesOf& axes_of) {
  std::map<std::string, Votes> votes;
  for (const Decoy& answer : answers) {
    const auto e = std::ranges::find(expected, answer.output, &Expected::output);
    if (e == expected.end()) continue;
    votes_of(answer, *e, votes[answer.name]);
  }
  for (const Expected& e : expected) {
    const std::optional<double> constant = constant_of(e);
    const std::string filled =
        constant ? "the number " + number_text(*constant, 6) + ", or nothing written" : "";
    for (Index at = 0; at < e.dumped->size(); ++at) {
      const double got = e.dumped->values[at];
      if (within_bound(e, at, got)) continue;
      for (const auto& [name, fits] :
           {std::pair{std::string("zeros, or nothing written"), got == 0},
            std::pair{std::string("NaN"), std::isnan(got)},
            std::pair{std::string("infinity"), std::isinf(got)}, std::pair{filled, got == constant}}) {
        if (name.empty()) continue;
        Votes::Count& count = votes[name].of[e.output];
        ++count.wrong;
        count.explained += fits;
        count.gross += fits, count.bold += fits;
      }
    }
  }

  std::vector<DiagnosisEntry> all;
  for (const Expected& e : expected)
    if (const auto truncated = exact_truncation(e)) all.push_back(*truncated);
  // Of answers that say the same of what is wrong, those come first that leave no output unexplained, then
  // those that deny least of what is right.
  std::vector<const std::pair<const std::string, Votes>*> likely;
  for (const auto& x : votes)
    if (x.second.confidence() >= least_confidence) likely.push_back(&x);
  std::ranges::stable_sort(likely, {}, [](const auto* x) {
    return std::pair{!x->second.explains_every_output(), x->second.denied_share()};
  });
  for (const auto* x : likely) {
    DiagnosisEntry& entry = all.emplace_back(entry_of(x->first, x->second));
    if (x->second.is_refuted_by_an_output()) entry.confidence = std::min(entry.confidence, most_if_refuted);
    const Votes::Count sum = x->second.of_explained_outputs();
    if (x->second.is_of_whole_call || !axes_of || !is_held_against(sum.denied, sum.explained)) continue;
    if (const std::string place = place_of(x->first, expected, answers, axes_of); !place.empty()) {
      entry.cause += ", " + place;
      continue;
    }
    entry.confidence = std::min(entry.confidence, most_if_denied);
    entry.evidence += "; " + std::to_string(sum.denied) + " right elements would be wrong";
  }
  if (const auto alone = one_element(expected)) all.push_back(*alone);
  std::ranges::move(narrow_stores(expected), std::back_inserter(all));
  all.insert(all.end(), fitted.begin(), fitted.end());
  std::ranges::move(explained_spread(expected, answers), std::back_inserter(all));
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
