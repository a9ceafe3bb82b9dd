// What `--fit` found, in sentences.
#include "verify/report/sentences.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

/// "p_dtype bfloat16 instead of float16 and qk_accumulate float16 instead of float32"
std::string changes_text(const OtherContract& contract) {
  std::string text;
  for (const OtherContract::Change& change : contract.changes)
    text += (text.empty() ? "" : " and ") + change.key + " " + change.to + " instead of " + change.from;
  return text;
}

/// "o 0.83 (98 % to the last bit), lse 0.7"
std::string spreads_text(const OtherContract& contract) {
  std::string text;
  for (const OutputFindings& o : contract.outputs) {
    text += (text.empty() ? "" : ", ") + o.name + " " + number_text(o.rms_ratio, 2);
    if (!o.stored_operands.empty()) text += " (" + number_text(100 * o.predicted, 3) + " % to the last bit)";
  }
  return text;
}

std::string alternatives(const std::vector<OtherContract>& contracts) {
  std::string text;
  for (const OtherContract& contract : contracts) text += (text.empty() ? "" : "; ") + changes_text(contract);
  return text;
}

}  // namespace

std::vector<std::string> sentences_of(const ContractFit& fit) {
  if (fit.contract.empty()) return {"the operation has no contract to vary"};
  std::vector<std::string> sentences;
  if (fit.verdict == Verdict::fail) {
    for (const OtherContract& contract : fit.weaker)
      sentences.push_back("passes with " + changes_text(contract) +
                          "; rms of error / sigma: " + spreads_text(contract));
    if (!fit.too_weak.empty())
      sentences.push_back("wrong answers pass as well with " + alternatives(fit.too_weak));
    if (fit.weaker.empty()) sentences.push_back("no weaker contract that still rejects wrong answers");
  } else {
    std::string& found = sentences.emplace_back(
        fit.verdict == Verdict::pass ? "satisfies its contract" : "inconclusive under its contract");
    if (fit.stricter.empty()) {
      found += " and no stricter one";
    } else {
      found += "; likewise with " + alternatives(fit.stricter);
      if (fit.stricter.size() > 1) found += ", each by itself";
    }
  }
  if (!fit.is_minimal)
    sentences.push_back("the search stopped after " + std::to_string(fit.judged) + " contracts");
  return sentences;
}

}  // namespace attest
