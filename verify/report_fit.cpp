// What `--fit` found, as text.
#include "verify/report.hpp"

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

std::string line(const std::string& text, const TextStyle& style) {
  return wrapped("fit: " + text, style.width, 6, 8);
}

std::string alternatives(const std::vector<OtherContract>& contracts) {
  std::string text;
  for (const OtherContract& contract : contracts) text += (text.empty() ? "" : "; ") + changes_text(contract);
  return text;
}

}  // namespace

std::string text_of_fit(const CaseFindings& c, const TextStyle& style) {
  if (!c.fit) return "";
  const ContractFit& fit = *c.fit;
  if (fit.contract.empty()) return line("the operation has no contract to vary", style);
  std::string text;
  if (fit.verdict == Verdict::fail) {
    for (const OtherContract& contract : fit.weaker)
      text +=
          line("passes with " + changes_text(contract) + "; rms of error / sigma: " + spreads_text(contract),
               style);
    if (!fit.too_weak.empty())
      text += line("wrong answers pass as well with " + alternatives(fit.too_weak), style);
    if (fit.weaker.empty()) text += line("no weaker contract that still rejects wrong answers", style);
  } else {
    std::string found =
        fit.verdict == Verdict::pass ? "satisfies its contract" : "inconclusive under its contract";
    if (fit.stricter.empty()) {
      found += " and no stricter one";
    } else {
      found += "; likewise with " + alternatives(fit.stricter);
      if (fit.stricter.size() > 1) found += ", each by itself";
    }
    text += line(found, style);
  }
  if (!fit.is_minimal)
    text += line("the search stopped after " + std::to_string(fit.judged) + " contracts", style);
  return text;
}

}  // namespace attest
