// What the subcommands of the program share: options, messages, standard output, finding and choosing cases.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/invalid_case.hpp"
#include "verify/findings.hpp"
#include "verify/verdict/row_sample.hpp"

namespace attest {

constexpr int usage_status = 2;

struct Options {
  std::vector<std::string> files, globs;
  std::string json;      // file, "-" for standard output, or empty
  std::string junit;     // file, or empty
  std::string html;      // file, or empty
  std::string baseline;  // file, or empty
  RowsWanted rows;
  bool batch = false, quiet = false, verbose = false, fit = false;
};

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// One line on standard error.
void complain(const std::string& text);

/// Standard output. After a failure, which it reports, it swallows everything.
class Output {
 public:
  bool works() const { return works_; }
  void print(const std::string& text);
  int status(int status_of_run) const { return works_ || status_of_run != 0 ? status_of_run : usage_status; }

 private:
  bool works_ = true;
};

/// Runs `work`. If it throws, says so in `c` and on standard error and returns false.
template <class Work>
bool guarded(CaseFindings& c, Work work) {
  const auto is_internal = [&](const std::string& what) {
    c.verdict = Verdict::internal;
    c.error = c.file + (c.name == "/" ? ": " : ": /") + c.name + ": internal error: " + what +
              "; please report it, with the file if you can";
  };
  try {
    work();
    return true;
  } catch (const InvalidCase& e) {
    c.verdict = Verdict::invalid;
    c.error = e.what();
  } catch (const std::bad_alloc&) {
    is_internal("out of memory");
  } catch (const std::exception& e) {
    is_internal(e.what());
  }
  complain(c.error);
  return false;
}

/// A file's cases before they are read. A file that cannot be opened stands in the reports as an invalid case
/// "/".
struct Listing {
  std::string file;
  std::vector<std::string> names;
  CaseFindings failure;
  bool readable;

  explicit Listing(const std::string& path);
};

/// Keeps the cases that match one of the globs. A glob that matches nothing is a usage error, unless a file
/// could not be read: then it may have been meant for that one, whose error stands already.
void select(std::vector<Listing>& listings, const std::vector<std::string>& globs);

/// The JSON report goes to a file.
bool has_json_file(const Options& options);

/// Any report goes to a file.
bool has_report_file(const Options& options);

/// Throws UsageError or WriteError if a report cannot be written to its file, or would replace a dump or
/// another report.
void check_report_files(const Options& options);

}  // namespace attest
