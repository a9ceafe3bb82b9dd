// Reads earlier reports and pairs their cases with those of a run.
#include "verify/report/baseline.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/invalid_case.hpp"
#include "verify/report/report.hpp"

namespace attest {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* renew = "attest baseline writes one";

std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

/// Numbers that JSON has no way to write are strings in a report.
double number(const Json& value) {
  if (!value.is_string()) return value.get<double>();
  const std::string& text = value.get_ref<const std::string&>();
  const double infinity = std::numeric_limits<double>::infinity();
  if (text == "inf") return infinity;
  if (text == "-inf") return -infinity;
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  throw InvalidCase("holds \"" + text + "\" where a number is expected");
}

std::vector<double> numbers(const Json& list) {
  std::vector<double> all;
  for (const Json& value : list) all.push_back(number(value));
  return all;
}

ErrorProfile::Blocks blocks(const Json& json) {
  return {numbers(json.at("rows")), numbers(json.at("columns"))};
}

CaseFindings case_of(const Json& json) {
  CaseFindings c;
  c.file = json.at("file").get<std::string>();
  c.name = json.at("name").get<std::string>();
  if (json.at("verdict") != name_of(Verdict::pass))
    throw InvalidCase("says that " + c.file + ": /" + c.name + " did not pass");
  c.inputs = json.at("inputs").get<std::string>();
  c.contract = json.at("contract").get<std::string>();
  for (const Json& output : json.at("outputs")) {
    OutputFindings o;
    o.name = output.at("name").get<std::string>();
    o.type_name = output.at("dtype").get<std::string>();
    o.shape = output.at("shape").get<std::vector<Index>>();
    o.worst_ratio = number(output.at("worst_ratio"));
    o.profile.spread = blocks(output.at("profile").at("spread"));
    o.profile.gain = blocks(output.at("profile").at("gain"));
    c.outputs.push_back(std::move(o));
  }
  return c;
}

}  // namespace

Baseline Baseline::read(const std::string& path, std::string_view version) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) throw InvalidCase(path + ": cannot be read; " + renew);
  Baseline baseline;
  baseline.path_ = path;
  try {
    const Json report = Json::parse(text.str());
    const std::string written_by = report.at("attest").get<std::string>();
    if (written_by != version || report.at("format") != report_format)
      throw InvalidCase("was written by attest " + written_by + ", this is " + std::string(version) +
                        ", whose bounds may differ; remove it, and attest baseline writes one anew");
    for (const Json& c : report.at("cases")) {
      baseline.cases_.push_back(case_of(c));
      baseline.json_.push_back(c.dump());
    }
  } catch (const InvalidCase& e) {
    throw InvalidCase(path + ": " + e.what());
  } catch (const Json::exception& e) {
    throw InvalidCase(path + ": is no JSON report of attest (" + std::string(e.what()) + "); " + renew);
  }
  for (std::size_t n = 0; n < baseline.cases_.size(); ++n) {
    if (baseline.find(baseline.cases_[n]) != &baseline.cases_[n])
      throw InvalidCase(path + ": has two cases " + file_name(baseline.cases_[n].file) + ": /" +
                        baseline.cases_[n].name + "; one is expected");
  }
  return baseline;
}

const CaseFindings* Baseline::find(const CaseFindings& c) const {
  const auto it = std::ranges::find_if(cases_, [&](const CaseFindings& x) {
    return x.name == c.name && file_name(x.file) == file_name(c.file);
  });
  return it == cases_.end() ? nullptr : &*it;
}

void Baseline::hold(CaseFindings& findings) const {
  if (findings.outputs.empty()) return;  // nothing was judged
  const CaseFindings* before = find(findings);
  if (!before) {
    findings.remarks.push_back("not in the baseline");
    return;
  }
  const auto cannot = [&](const std::string& what) {
    findings.reasons.push_back(what + " than in the baseline: nothing to hold against it");
    findings.verdict = std::max(findings.verdict, Verdict::inconclusive);
  };
  if (findings.inputs != before->inputs) return cannot("other inputs, spec or rows");
  if (findings.contract != before->contract) return cannot("another contract");
  for (const OutputFindings& was : before->outputs) {
    const auto now = std::ranges::find(findings.outputs, was.name, &OutputFindings::name);
    if (now == findings.outputs.end() || now->type_name != was.type_name || now->shape != was.shape) {
      cannot("no such out/" + was.name);
      continue;
    }
    now->growth = growth(was, *now);
    if (now->growth.empty()) continue;
    now->verdict = std::max(now->verdict, Verdict::fail);
    findings.verdict = std::max(findings.verdict, Verdict::fail);
  }
}

std::vector<CaseFindings> Baseline::missing(std::span<const CaseFindings> judged) const {
  std::set<std::string> files;
  for (const CaseFindings& c : judged) files.insert(file_name(c.file));
  std::vector<CaseFindings> all;
  for (const CaseFindings& c : cases_) {
    const bool is_there = std::ranges::any_of(judged, [&](const CaseFindings& x) {
      return file_name(x.file) == file_name(c.file) && (x.name == c.name || x.name == "/");
    });
    if (is_there || !files.contains(file_name(c.file))) continue;
    CaseFindings& gone = all.emplace_back();
    gone.file = c.file;
    gone.name = c.name;
    gone.verdict = Verdict::inconclusive;
    gone.reasons = {"in the baseline, but not in the dump"};
  }
  return all;
}

std::string Baseline::with(std::span<const CaseFindings> judged, std::string_view version) const {
  RunFindings run;
  run.cases.assign(judged.begin(), judged.end());
  Json report = Json::parse(json_of_run(run, version));
  std::vector<Json> cases(report["cases"].begin(), report["cases"].end());
  for (std::size_t n = 0; n < cases_.size(); ++n) {
    const bool is_replaced =
        std::ranges::any_of(judged, [&](const CaseFindings& c) { return find(c) == &cases_[n]; });
    if (!is_replaced) cases.push_back(Json::parse(json_[n]));
  }
  const auto key = [](const Json& c) {
    return std::pair{file_name(c["file"].get<std::string>()), c["name"].get<std::string>()};
  };
  std::ranges::sort(cases, [&](const Json& a, const Json& b) { return key(a) < key(b); });
  report["cases"] = cases;
  return text_of_json(report.dump(2));
}

}  // namespace attest
