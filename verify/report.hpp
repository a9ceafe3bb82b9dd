// Findings as text for people and as JSON for programs (docs/report_json.md).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "verify/findings.hpp"
#include "verify/text.hpp"

namespace attest {

/// The table of one file: its name, a line per case, below it what is wrong with the case. `cases` are all of
/// the same file, at least one.
std::string text_of_file(std::span<const CaseFindings> cases, const TextStyle& style);

/// What stands below the tables; the last line counts the verdicts: "15 cases: 12 pass, 2 fail, 1 invalid".
std::string text_of_summary(const RunFindings& run, const TextStyle& style);

/// The whole report, a line end behind it. `version` is the program's.
std::string json_of_run(const RunFindings& run, std::string_view version);

}  // namespace attest
