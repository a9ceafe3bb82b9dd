// The text report: one line per case, and below it what a reader has to know when the case did not pass, or
// wants to know of any.
#include <algorithm>
#include <cmath>
#include <vector>

#include "verify/report/report.hpp"
#include "verify/report/sentences.hpp"

namespace attest {
namespace {

constexpr Index detail_indent = 6;
constexpr const char* fit_warning =
    "fit: no diagnosis and no verdict; errors of another kind, such as a dropped tile, can look like low "
    "precision";

Color color_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return Color::green;
    case Verdict::inconclusive:
      return Color::yellow;
    default:
      return Color::red;
  }
}

/// "o 0.62"
std::string cell_of(const OutputFindings& output) {
  return output.name + " " + ratio_text(output.worst_ratio);
}

/// Widths of the columns of a file's table.
struct Columns {
  Index verdict = 0, name = 0;
  std::vector<Index> cells;  // the k-th output of every case

  Columns(std::span<const CaseFindings> cases, Index width) {
    for (const CaseFindings& c : cases) {
      verdict = std::max(verdict, display_width(name_of(c.verdict)));
      name = std::max(name, display_width(printable(c.name)));
      cells.resize(std::max(cells.size(), c.outputs.size()));
      for (std::size_t k = 0; k < c.outputs.size(); ++k)
        cells[k] = std::max(cells[k], display_width(cell_of(c.outputs[k])));
    }
    if (width == 0) return;
    Index all_cells = 0;
    for (const Index cell : cells) all_cells += cell + 2;
    const Index shortest_name = 16;
    name = std::min(name, std::max(shortest_name, width - first_column() - verdict - 2 - all_cells));
  }

  static Index first_column() { return 2; }
  Index name_column() const { return first_column() + verdict + 2; }
  Index cells_column() const { return name_column() + name + 2; }
};

/// "  pass  fp16_cross  o 0.62  lse 0.08": outputs that do not fit go on in further lines.
std::string case_line(const CaseFindings& c, const Columns& columns, const TextStyle& style) {
  const std::string verdict(name_of(c.verdict));
  const std::string name = shortened(printable(c.name), columns.name);
  std::string line = "  " + painted(verdict, color_of(c.verdict), style) +
                     padded("", columns.verdict - display_width(verdict));
  line += "  " + (c.outputs.empty() ? name : padded(name, columns.name));
  Index column = columns.cells_column() - 2;
  Index blanks = 0;  // that wait for something to stand behind them
  for (std::size_t k = 0; k < c.outputs.size(); ++k) {
    const OutputFindings& output = c.outputs[k];
    const std::string cell = cell_of(output);
    const Index width = display_width(cell);
    if (style.width > 0 && k > 0 && column + 2 + width > style.width) {
      line += '\n';
      blanks = column = columns.cells_column() - 2;
    }
    line += padded("", blanks + 2);
    line += output.verdict == Verdict::pass ? cell : painted(cell, color_of(output.verdict), style);
    blanks = columns.cells[k] - width;
    column += 2 + columns.cells[k];
  }
  return line + '\n';
}

/// `sentence` about an output, below the line of its case.
std::string about(const OutputFindings& o, const std::string& sentence, const TextStyle& style) {
  return wrapped(o.name + ": " + sentence, style.width, detail_indent,
                 detail_indent + display_width(o.name) + 2);
}

std::string output_details(const OutputFindings& o, const TextStyle& style) {
  const Index hanging = detail_indent + display_width(o.name) + 2;
  std::string text;
  if (o.beyond > 0)
    text = about(o, beyond_sentence(o), style) + wrapped(worst_sentence(o), style.width, hanging, hanging);
  for (const Statistic& x : o.statistics)  // of little interest where elements are certainly wrong
    if (x.exceeds() && o.beyond_rigorous == 0) text += about(o, sentence_of(x), style);
  for (const Growth& x : o.growth) text += about(o, sentence_of(x), style);
  return text;
}

std::string detail(const std::string& text, const TextStyle& style) {
  return wrapped(printable(text), style.width, detail_indent, detail_indent + 2);
}

/// What stands below the line of a case. An invalid case has nothing here: its error went to standard error.
std::string case_details(const CaseFindings& c, const TextStyle& style) {
  std::string text;
  for (const OutputFindings& output : c.outputs)
    if (output.verdict == Verdict::fail) text += output_details(output, style);
  for (const std::string& reason : c.reasons) text += detail("reason: " + reason, style);
  for (const std::string& remark : c.remarks) text += detail("remark: " + remark, style);
  for (const DiagnosisEntry& d : c.diagnosis)
    text += detail(
        "diagnosis: " + d.cause + " (confidence " + number_text(d.confidence, 2) + "): " + d.evidence, style);
  return text;
}

/// What `--fit` found of a case; "" if it was not asked for.
std::string fit_details(const CaseFindings& c, const TextStyle& style) {
  std::string text;
  if (!c.fit) return text;
  for (const std::string& sentence : sentences_of(*c.fit)) text += detail("fit: " + sentence, style);
  return text;
}

/// What was measured of an output, whatever its verdict: four lines.
std::string output_evidence(const OutputFindings& o, const TextStyle& style) {
  const int digits = digits_of(o);
  const Index hanging = detail_indent + display_width(o.name) + 2;
  std::string text =
      wrapped(o.name + ": " + o.type_name + " " + list_text(o.shape) + ", " + std::to_string(o.elements) +
                  " elements, " + std::to_string(o.beyond) + " beyond the bound",
              style.width, detail_indent, hanging);
  const auto add = [&](const std::string& line) { text += wrapped(line, style.width, hanging, hanging); };
  add("worst at " + list_text(o.at) + ": got " + number_text(o.got, digits) + ", want " +
      number_text(o.want, digits) + "; |error| " + number_text(o.error, 3) + ", bound " +
      number_text(o.bound, 3));
  add("|error| / bound " + ratio_text(o.worst_ratio) + ", / rigorous bound " +
      ratio_text(o.worst_rigorous_ratio) + "; rms of error / sigma " + number_text(o.rms_ratio, 3));
  std::string statistics;
  for (const Statistic& x : o.statistics)
    statistics += (statistics.empty() ? "" : ", ") + x.name + " " + number_text(x.value, 3) + " (limit " +
                  number_text(x.limit, 3) + ")";
  if (!statistics.empty()) add(statistics);
  return text;
}

std::string case_evidence(const CaseFindings& c, const TextStyle& style) {
  std::string text;
  for (const OutputFindings& output : c.outputs) text += output_evidence(output, style);
  if (!c.contract.empty()) text += detail("contract: " + c.contract, style);
  return text;
}

/// The contract that all cases share; "" if they do not. Invalid cases have none and do not count.
std::string shared_contract(std::span<const CaseFindings> cases) {
  std::string shared;
  for (const CaseFindings& c : cases) {
    if (shared.empty()) shared = c.contract;
    if (!c.contract.empty() && c.contract != shared) return "";
  }
  return shared;
}

}  // namespace

std::string text_of_file(std::span<const CaseFindings> cases, const TextStyle& style, Detail amount) {
  const std::string file = printable(cases.front().file);
  std::string text =
      painted(style.width > 0 ? shortened(file, style.width) : file, Color::bold, style) + '\n';
  const Columns columns(cases, style.width);
  const std::string contract = amount == Detail::evidence ? "" : shared_contract(cases);
  for (const CaseFindings& c : cases) {
    text += case_line(c, columns, style);
    if (!c.judged.empty()) text += detail(c.judged, style);
    text += case_details(c, style) + fit_details(c, style);
    if (amount == Detail::evidence) {
      text += case_evidence(c, style);
    } else if (contract.empty() && !c.contract.empty()) {
      text += detail("contract: " + c.contract, style);
    }
  }
  if (!contract.empty()) text += wrapped("contract: " + printable(contract), style.width, 2, 4);
  return text;
}

std::string text_of_problems(const CaseFindings& c) {
  return case_details(c, {});
}

std::string text_of_evidence(const CaseFindings& c) {
  return (c.judged.empty() ? "" : detail(c.judged, {})) + case_evidence(c, {}) + fit_details(c, {});
}

std::string text_of_summary(const RunFindings& run, const TextStyle& style) {
  std::string text = "\n";
  if (std::ranges::any_of(run.cases, [](const CaseFindings& c) { return !c.outputs.empty(); }))
    text += "figures: worst |error| / bound; above 1 fails\n";
  if (std::ranges::any_of(run.cases, [](const CaseFindings& c) { return c.fit && !c.fit->weaker.empty(); }))
    text += wrapped(fit_warning, style.width, 0, 0);
  return text + text_of_counts(run, style);
}

std::string text_of_counts(const RunFindings& run, const TextStyle& style) {
  std::string text = std::to_string(run.cases.size()) + (run.cases.size() == 1 ? " case: " : " cases: ");
  bool is_first = true;
  for (const Verdict v :
       {Verdict::pass, Verdict::inconclusive, Verdict::fail, Verdict::invalid, Verdict::internal}) {
    const Index count = std::ranges::count(run.cases, v, &CaseFindings::verdict);
    if (count == 0) continue;
    const std::string counted = std::to_string(count) + " " + std::string(name_of(v));
    text += (is_first ? "" : ", ") + painted(counted, color_of(v), style);
    is_first = false;
  }
  return text + '\n';
}

}  // namespace attest
