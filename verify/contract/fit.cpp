// Which contracts a dump satisfies: a walk through those near its own.
#include "verify/contract/fit.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "core/dtype.hpp"
#include "core/invalid_case.hpp"

namespace attest {
namespace {

/// The values of a key, from the strictest to the weakest, and where the case's own stands.
struct Ladder {
  std::string key;
  std::vector<std::string> values;
  std::size_t own;
};

/// A place on every ladder.
using Levels = std::vector<std::size_t>;

std::string text_of(const Attribute& attribute) {
  return std::get<std::string>(attribute);
}

std::vector<std::string> values_of(const SpecKey& key, int most_precision) {
  std::vector<std::string> values;
  if (key.values == "element type") {
    for (const Format& f : all_formats())
      if (f.precision <= most_precision) values.emplace_back(f.name);
    return values;
  }
  std::istringstream listed(key.values);
  for (std::string value; std::getline(listed >> std::ws, value, ',');) values.push_back(value);
  return values;
}

/// Every ladder ends with the weakest value that is tried, or with the case's own if that is weaker.
std::vector<Ladder> ladders_of(const Op& op, const Attributes& settled) {
  int most_precision = format_of(DType::float32).precision;
  for (const Format& f : all_formats()) {
    for (const auto& [key, value] : settled)
      if (value == Attribute(std::string(f.name))) most_precision = std::max(most_precision, f.precision);
  }
  std::vector<Ladder> ladders;
  for (const SpecKey& key : op.contract) {
    const auto own = settled.find(std::string(key.name));
    if (key.weakest.empty() || own == settled.end()) continue;
    std::vector<std::string> values = values_of(key, most_precision);
    const auto place = [&](std::string_view value) {
      return static_cast<std::size_t>(std::ranges::find(values, value) - values.begin());
    };
    const std::size_t at = place(text_of(own->second));
    values.resize(std::max(at, place(key.weakest)) + 1);
    ladders.push_back({std::string(key.name), std::move(values), at});
  }
  return ladders;
}

bool has_the_figures_of(const CaseFindings& a, const CaseFindings& b) {
  return std::ranges::equal(a.outputs, b.outputs, [](const OutputFindings& x, const OutputFindings& y) {
    return x.bound == y.bound && x.worst_ratio == y.worst_ratio && x.rms_ratio == y.rms_ratio &&
           x.worst_rigorous_ratio == y.worst_rigorous_ratio;
  });
}

class Search {
 public:
  Search(const Op& op, const CaseFindings& own, const ContractTrial& trial)
      : own_(own), trial_(trial), ladders_(ladders_of(op, own.settled)) {
    fit_.verdict = own.verdict;
    for (const Ladder& ladder : ladders_) {
      own_levels_.push_back(ladder.own);
      fit_.contract[ladder.key] = ladder.values[ladder.own];
    }
  }

  ContractFit weaker() {
    Levels furthest = own_levels_;  // that fails
    for (std::size_t n = 0; n < ladders_.size(); ++n) furthest[n] = weaken(n);
    if (fit_.weaker.empty()) combine(furthest);
    // First the contract that predicts the errors best: their spread, and the elements to the last bit.
    const auto distance = [](const OtherContract& contract) {
      double squares = 0;
      for (const OutputFindings& o : contract.outputs)
        squares += (1 - o.rms_ratio) * (1 - o.rms_ratio) + (1 - o.predicted) * (1 - o.predicted);
      return squares;
    };
    std::ranges::stable_sort(fit_.weaker, std::less(), distance);
    return std::move(fit_);
  }

  ContractFit stricter() {
    for (std::size_t n = 0; n < ladders_.size(); ++n) {
      Levels levels = own_levels_, best = own_levels_;
      while (levels[n] > 0) {
        --levels[n];
        const CaseFindings* found = judged(levels);
        if (found && found->verdict > own_.verdict) break;
        if (found) best = levels;
      }
      if (best == own_levels_ || has_the_figures_of(own_, *judged(best))) continue;
      fit_.stricter.push_back(other(best));
    }
    return std::move(fit_);
  }

 private:
  /// Null where there is no such contract, or no more of them may be judged.
  const CaseFindings* judged(const Levels& levels) {
    const auto known = judged_.find(levels);
    if (known != judged_.end()) return known->second ? &*known->second : nullptr;
    if (fit_.judged == most_fitted) {
      fit_.is_minimal = false;
      return nullptr;
    }
    Attributes contract;
    for (std::size_t n = 0; n < ladders_.size(); ++n)
      contract[ladders_[n].key] = ladders_[n].values[levels[n]];
    std::optional<CaseFindings>& found = judged_[levels];
    try {
      found = trial_(contract);
      ++fit_.judged;
    } catch (const InvalidCase&) {  // a type that cannot hold the inputs, say
    }
    return found ? &*found : nullptr;
  }

  bool fails(const Levels& levels) {
    const CaseFindings* found = judged(levels);
    return !found || found->verdict >= Verdict::fail;
  }

  OtherContract other(const Levels& levels) {
    OtherContract contract;
    for (std::size_t n = 0; n < ladders_.size(); ++n) {
      const Ladder& ladder = ladders_[n];
      if (levels[n] != ladder.own)
        contract.changes.push_back({ladder.key, ladder.values[ladder.own], ladder.values[levels[n]]});
    }
    contract.outputs = judged(levels)->outputs;
    return contract;
  }

  /// A contract under which the case does not fail.
  void take(const Levels& levels) {
    (judged(levels)->verdict == Verdict::pass ? fit_.weaker : fit_.too_weak).push_back(other(levels));
  }

  /// Returns the weakest level of one key at which the case still fails.
  std::size_t weaken(std::size_t n) {
    Levels levels = own_levels_;
    std::size_t furthest = levels[n];
    while (++levels[n] < ladders_[n].values.size()) {
      const CaseFindings* found = judged(levels);
      if (!found) continue;
      if (found->verdict < Verdict::fail) {
        take(levels);
        break;
      }
      furthest = levels[n];
    }
    return furthest;
  }

  void combine(Levels levels) {
    if (levels == own_levels_ || fails(levels)) return;
    for (std::size_t n = ladders_.size(); n-- > 0;) {
      const std::size_t loose = levels[n];
      levels[n] = ladders_[n].own;
      if (levels[n] == loose || !fails(levels)) continue;
      for (levels[n] = loose; levels[n] > ladders_[n].own; --levels[n]) {
        Levels tighter = levels;
        --tighter[n];
        if (fails(tighter)) break;
      }
    }
    take(levels);
  }

  const CaseFindings& own_;
  const ContractTrial& trial_;
  std::vector<Ladder> ladders_;
  Levels own_levels_;
  std::map<Levels, std::optional<CaseFindings>> judged_;
  ContractFit fit_;
};

}  // namespace

ContractFit fit_contract(const Op& op, const CaseFindings& own, const ContractTrial& trial) {
  Search search(op, own, trial);
  return own.verdict == Verdict::fail ? search.weaker() : search.stricter();
}

}  // namespace attest
