// Judges the cases of dumps, reports, and turns the verdict into an exit status.
#include "verify/program/verify_command.hpp"

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <set>
#include <span>

#include "verify/atomic_file.hpp"
#include "verify/contract/fit.hpp"
#include "verify/dump/dump.hpp"
#include "verify/progress.hpp"
#include "verify/report/baseline.hpp"
#include "verify/report/report.hpp"
#include "verify/verdict/verify_case.hpp"

namespace attest {
namespace {

CaseFindings judge(const Dump& dump, const Listing& listing, const std::string& name, const Options& options,
                   Progress& progress) {
  const Wanted wanted{.regions = !options.json.empty() || !options.html.empty(),
                      .pictures = !options.html.empty()};
  CaseFindings findings;
  findings.file = listing.file;
  findings.name = name;
  const auto start = std::chrono::steady_clock::now();
  Case c;
  const bool judged = guarded(findings, [&] {
    const struct LineAway {  // before guarded() complains
      Progress& line;
      ~LineAway() { line.clear(); }
    } line_away{progress};
    c = dump.read(name, Dump::Contents::headers);
    const std::optional<RowSample> sample = RowSample::of(find_op(c), c, options.rows);
    if (!sample) c = dump.read(name);
    const auto judged_to = [&](const Wanted& asked) {
      if (!sample) return verify_case(c, progress, asked);
      const auto read = [&](const Dump::Parts& parts) {
        Case part = dump.read(name, parts);
        part.contract = c.contract;
        return part;
      };
      return verify_rows(c, *sample, read, progress, asked);
    };
    findings = judged_to(wanted);
    if (!options.fit) return;
    Index number = 0;
    findings.fit = fit_contract(find_op(c), findings, [&](const Attributes& contract) {
      progress.begin_step("contract " + std::to_string(++number));
      c.contract = contract;
      return judged_to({.diagnosis = false});
    });
  });
  if (!judged) {
    findings.op = c.op;
    findings.about = c.about;
  }
  findings.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return findings;
}

/// The table of a file as far as it is asked for; empty if nothing is left to say.
std::string table_of(std::span<const CaseFindings> cases, const Options& options, const TextStyle& style) {
  std::vector<CaseFindings> shown(cases.begin(), cases.end());
  if (options.quiet) std::erase_if(shown, [](const auto& c) { return c.verdict == Verdict::pass; });
  if (shown.empty() || options.json == "-") return "";
  return text_of_file(shown, style, options.verbose ? Detail::evidence : Detail::problems);
}

/// Judges every case and prints the tables.
class Run {
 public:
  explicit Run(const Options& options) : options_(options), style_(style_of(STDOUT_FILENO)) {
    for (const std::string& file : options.files) listings_.emplace_back(file);
    select(listings_, options.globs);
    for (const Listing& listing : listings_) count_ += std::ssize(listing.names);
  }

  /// Errors are held against those of the baseline, if there is one.
  void judge_all(const Baseline* baseline, bool always) {
    for (Listing& listing : listings_) {
      if (!output_.works() && !always) break;  // nobody would see the rest
      const auto first = static_cast<Index>(run_.cases.size());
      judge_file(listing, baseline);
      const std::span<const CaseFindings> cases(run_.cases.begin() + first, run_.cases.end());
      const std::string table = table_of(cases, options_, style_);
      if (table.empty()) continue;
      output_.print((has_table_ ? "\n" : "") + table);
      has_table_ = true;
    }
  }

  std::string summary() const {
    return has_table_ ? text_of_summary(run_, style_) : text_of_counts(run_, style_);
  }
  const RunFindings& findings() const { return run_; }
  Output& output() { return output_; }

 private:
  void judge_file(Listing& listing, const Baseline* baseline) {
    const auto first = static_cast<Index>(run_.cases.size());
    if (!listing.readable) run_.cases.push_back(listing.failure);
    if (listing.names.empty()) return;
    std::optional<Dump> dump;
    if (!guarded(listing.failure, [&] { dump.emplace(listing.file); })) {
      run_.cases.push_back(listing.failure);
      return;
    }
    for (const std::string& name : listing.names) {
      progress_.begin_case(name, index_++, count_);
      run_.cases.push_back(judge(*dump, listing, name, options_, progress_));
      if (baseline) baseline->hold(run_.cases.back());
    }
    if (!baseline || !options_.globs.empty()) return;
    const std::span<const CaseFindings> judged(run_.cases.begin() + first, run_.cases.end());
    for (CaseFindings& gone : baseline->missing(judged)) {
      gone.file = listing.file;
      run_.cases.push_back(std::move(gone));
    }
  }

  const Options& options_;
  const TextStyle style_;
  std::vector<Listing> listings_;
  Output output_;
  RunFindings run_;
  Progress progress_;
  bool has_table_ = false;
  Index count_ = 0, index_ = 0;
};

/// An earlier report. InvalidCase becomes a message and the exit status of an invalid case.
std::optional<Baseline> read_baseline(const Options& options) {
  CaseFindings failure;
  failure.file = options.baseline;
  failure.name = "/";
  std::optional<Baseline> baseline;
  guarded(failure, [&] { baseline = Baseline::read(options.baseline, ATTEST_VERSION); });
  return baseline;
}

}  // namespace

int verify(const Options& options) {
  check_report_files(options);
  std::optional<Baseline> baseline;
  if (!options.baseline.empty()) {
    baseline = read_baseline(options);
    if (!baseline) return exit_status(Verdict::invalid);
  }
  Run run(options);
  run.judge_all(baseline ? &*baseline : nullptr, has_report_file(options));
  const RunFindings& findings = run.findings();
  if (has_json_file(options)) write_whole(options.json, json_of_run(findings, ATTEST_VERSION));
  if (!options.junit.empty()) write_whole(options.junit, junit_of_run(findings, ATTEST_VERSION));
  if (!options.html.empty()) write_whole(options.html, html_of_run(findings, ATTEST_VERSION));
  run.output().print(options.json == "-" ? json_of_run(findings, ATTEST_VERSION) : run.summary());
  return run.output().status(exit_status(findings.verdict()));
}

int write_baseline(const Options& options) {
  Baseline baseline;
  if (std::filesystem::exists(options.baseline)) {
    const std::optional<Baseline> earlier = read_baseline(options);
    if (!earlier) return exit_status(Verdict::invalid);
    baseline = *earlier;
  }
  check_writable(options.baseline);
  Run run(options);
  run.judge_all(nullptr, true);
  run.output().print(run.summary());
  const RunFindings& findings = run.findings();
  const Verdict verdict = findings.verdict();
  if (verdict != Verdict::pass) {
    complain(options.baseline + " was not written: only cases that pass make a baseline");
    return run.output().status(exit_status(verdict));
  }
  std::set<std::pair<std::string, std::string>> names;
  for (const CaseFindings& c : findings.cases) {
    if (!names.emplace(std::filesystem::path(c.file).filename().string(), c.name).second)
      throw UsageError("two files have a case " + c.name + " and the same name " + c.file +
                       "; a baseline tells them apart by these");
  }
  write_whole(options.baseline, baseline.with(findings.cases, ATTEST_VERSION));
  return run.output().status(exit_status(verdict));
}

}  // namespace attest
