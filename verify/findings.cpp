// Names, exit statuses and the order of verdicts.
#include "verify/findings.hpp"

#include <algorithm>
#include <cstdlib>

namespace attest {

Verdict RunFindings::verdict() const {
  if (cases.empty()) return Verdict::inconclusive;
  return std::ranges::max(cases, {}, &CaseFindings::verdict).verdict;
}

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return "pass";
    case Verdict::inconclusive:
      return "inconclusive";
    case Verdict::fail:
      return "fail";
    case Verdict::invalid:
      return "invalid";
    case Verdict::internal:
      return "internal";
  }
  std::abort();
}

int exit_status(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return 0;
    case Verdict::fail:
      return 1;
    case Verdict::invalid:
      return 3;
    case Verdict::inconclusive:
      return 4;
    case Verdict::internal:
      return 5;
  }
  std::abort();
}

}  // namespace attest
