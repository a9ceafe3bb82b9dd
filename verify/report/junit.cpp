// The JUnit report, in the elements and attributes that GitHub's actions, GitLab and Jenkins read:
// docs/ci.md.
#include <algorithm>
#include <charconv>

#include "verify/report/report.hpp"

namespace attest {
namespace {

std::string attribute(std::string_view name, std::string_view value) {
  return " " + std::string(name) + "=\"" + markup_text(value) + "\"";
}

std::string seconds_text(double seconds) {
  char buffer[64];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, seconds, std::chars_format::fixed, 3).ptr};
}

/// Tests, failures, errors and time of a suite, or of all of them.
std::string counts(std::span<const CaseFindings> cases) {
  Index failures = 0, errors = 0;
  double seconds = 0;
  for (const CaseFindings& c : cases) {
    failures += c.verdict == Verdict::fail || c.verdict == Verdict::inconclusive;
    errors += c.verdict == Verdict::invalid || c.verdict == Verdict::internal;
    seconds += c.seconds;
  }
  return attribute("tests", std::to_string(cases.size())) + attribute("failures", std::to_string(failures)) +
         attribute("errors", std::to_string(errors)) + attribute("skipped", "0") +
         attribute("time", seconds_text(seconds));
}

/// Jenkins takes what stands before the last dot for a package: the file's name must not have one.
std::string class_of(const CaseFindings& c) {
  std::string name = c.file.ends_with(".h5") ? c.file.substr(0, c.file.size() - 3) : c.file;
  std::ranges::replace(name, '.', '_');
  return "attest." + name;
}

/// A <failure> or an <error>: the first line of what is wrong in `message`, all of it inside.
std::string problem(std::string_view element, const CaseFindings& c, const std::string& text) {
  const std::size_t first = std::min(text.find_first_not_of(' '), text.size());
  return "      <" + std::string(element) + attribute("type", name_of(c.verdict)) +
         attribute("message", text.substr(first, text.find('\n', first) - first)) + ">" + markup_text(text) +
         "</" + std::string(element) + ">\n";
}

std::string test_case(const CaseFindings& c) {
  std::string xml = "    <testcase" + attribute("name", c.name) + attribute("classname", class_of(c)) +
                    attribute("file", c.file) + attribute("time", seconds_text(c.seconds)) + ">\n";
  switch (c.verdict) {
    case Verdict::pass:
      break;
    case Verdict::inconclusive:
    case Verdict::fail:
      xml += problem("failure", c, text_of_problems(c));
      break;
    case Verdict::invalid:
    case Verdict::internal:
      xml += problem("error", c, c.error);
      break;
  }
  if (!c.outputs.empty()) xml += "      <system-out>" + markup_text(text_of_evidence(c)) + "</system-out>\n";
  return xml + "    </testcase>\n";
}

}  // namespace

std::string junit_of_run(const RunFindings& run, std::string_view version) {
  const std::span<const CaseFindings> all = run.cases;
  std::string xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites" +
                    attribute("name", "attest " + std::string(version)) + counts(all) + ">\n";
  for (std::size_t first = 0; first < all.size();) {
    std::size_t last = first;
    while (last < all.size() && all[last].file == all[first].file) ++last;
    const std::span<const CaseFindings> suite = all.subspan(first, last - first);
    xml += "  <testsuite" + attribute("name", suite.front().file) + counts(suite) + ">\n";
    for (const CaseFindings& c : suite) xml += test_case(c);
    xml += "  </testsuite>\n";
    first = last;
  }
  return xml + "</testsuites>\n";
}

}  // namespace attest
