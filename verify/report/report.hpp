// Findings as text for people, as JSON for programs (docs/report_json.md), as JUnit XML for CI (docs/ci.md)
// and as a page with pictures (docs/html_report.md).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "verify/findings.hpp"
#include "verify/text.hpp"

namespace attest {

/// How much is told of a case. evidence: of a case that passed, too, what was measured of every output.
enum class Detail { problems, evidence };

/// The table of one file: its name, a line per case, below it what is wrong with the case. `cases` are all of
/// the same file, at least one.
std::string text_of_file(std::span<const CaseFindings> cases, const TextStyle& style,
                         Detail detail = Detail::problems);

/// What stands below the line of a case that did not pass, and what is measured of any that was judged, with
/// its contract. Plain text, lines of any length.
std::string text_of_problems(const CaseFindings& c);
std::string text_of_evidence(const CaseFindings& c);

/// What stands below the tables; the last line counts the verdicts.
std::string text_of_summary(const RunFindings& run, const TextStyle& style);

/// "15 cases: 12 pass, 2 fail, 1 invalid"
std::string text_of_counts(const RunFindings& run, const TextStyle& style);

/// The whole report, a line end behind it. `version` is the program's.
std::string json_of_run(const RunFindings& run, std::string_view version);

constexpr int report_format = 1;  // counts up when a key changes its meaning or goes away

/// Indented JSON with its lists of numbers on one line each, and a line end behind it.
std::string text_of_json(const std::string& indented);

/// The same for JUnit: a test suite per file, a test per case. A case that is inconclusive counts as failed,
/// as it does in the exit status.
std::string junit_of_run(const RunFindings& run, std::string_view version);

/// The same as one page that needs nothing else: HTML that is XML, too.
std::string html_of_run(const RunFindings& run, std::string_view version);

}  // namespace attest
