// What comparing a case with its expected values found, and the verdict on it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verify/case.hpp"
#include "verify/statistics/picture.hpp"
#include "verify/statistics/spread_by_region.hpp"
#include "verify/statistics/statistics.hpp"

namespace attest {

/// From the lightest to the gravest. Internal: our own check failed, so that nothing is known of the case.
enum class Verdict { pass, inconclusive, fail, invalid, internal };

/// A figure that is larger than in a baseline by more than chance explains.
struct Growth {
  std::string name;  // "spread", "gain" (their sizes) or "worst": |error| / bound
  double value, before, limit;
};

/// One output against its bounds, element by element. Ratios are |error| / bound: above 1 is a failure.
struct OutputFindings {
  std::string name;
  std::string type_name;
  std::vector<Index> shape;
  Verdict verdict = Verdict::pass;
  Index elements = 0;
  Index beyond = 0;           // elements beyond the bound
  Index beyond_rigorous = 0;  // of these, beyond what any kernel that keeps the contract could do
  std::string where;          // they are, in words; empty if there are none
  double worst_ratio = 0;     // |error| / bound at the worst element; infinite where a special value is wrong
  double worst_rigorous_ratio = 0;  // largest |error| / rigorous bound, which may be at another element
  std::vector<Index> at;            // where the worst element is, in the dumped shape
  double got = 0, want = 0, bound = 0, error = 0;  // of the worst element
  double rms_ratio =
      0;  // root mean square of error / sigma over the elements with a sigma: near 1 if the model fits
  std::vector<Statistic> statistics;
  std::string stored_operands;  // how the kernel seems to have stored P and dS; empty if that is unknown
  double predicted = 0;         // share of the elements that this predicts to the last bit
  ErrorProfile profile;
  std::vector<Growth> growth;           // empty without a baseline
  std::vector<SpreadByRegion> regions;  // for display, as the picture; both only if they were asked for
  std::optional<Picture> picture;
};

/// Why a verdict is what it is, in words.
struct DiagnosisEntry {
  std::string cause;
  double confidence;  // 0 to 1
  std::string evidence;
};

/// A contract that differs from the case's own in some keys.
struct OtherContract {
  struct Change {
    std::string key, from, to;
  };
  std::vector<Change> changes;
  std::vector<OutputFindings> outputs;  // under that contract
};

/// Which contracts a case satisfies beside or in place of its own: verify/contract/fit.hpp.
struct ContractFit {
  Verdict verdict = Verdict::pass;      // under the case's own contract, whatever a baseline says
  Attributes contract;                  // the case's own, as far as it was varied, key by key
  std::vector<OtherContract> weaker;    // it passes, and under none between these and its own
  std::vector<OtherContract> too_weak;  // it would pass, but wrong answers would, too
  std::vector<OtherContract> stricter;  // the strictest value of a key that it satisfies
  Index judged = 0;                     // contracts
  bool is_minimal = true;               // false: the search was cut short
};

struct CaseFindings {
  std::string file, name, op;
  Verdict verdict = Verdict::pass;
  std::string contract;            // for which the verdict holds, in words
  Attributes settled;              // the same key by key
  std::optional<ContractFit> fit;  // where it was asked for
  std::vector<OutputFindings> outputs;
  std::vector<DiagnosisEntry> diagnosis;
  std::vector<std::string> reasons;  // why inconclusive
  std::vector<std::string> remarks;  // what else is known of the case, whatever its verdict
  std::string judged;                // which rows were, in words; empty if all of them
  std::string inputs;                // a digest of op, spec and inputs; empty if nothing was judged
  double seconds = 0;                // that judging took
  std::string error;                 // why invalid or internal: one line that names the file
  Attributes about;
};

struct RunFindings {
  std::vector<CaseFindings> cases;
  Verdict verdict() const;  // the gravest; inconclusive if there are no cases, as nothing was judged
};

std::string_view name_of(Verdict verdict);
int exit_status(Verdict verdict);  // pass 0, fail 1, invalid 3, inconclusive 4, internal 5

}  // namespace attest
