// Messages, standard output, finding and choosing cases.
#include "verify/program/program.hpp"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "verify/atomic_file.hpp"
#include "verify/dump/dump.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

bool matches(const std::string& glob, const std::string& name) {
  return fnmatch(glob.c_str(), name.c_str(), 0) == 0;
}

}  // namespace

void complain(const std::string& text) {
  std::fprintf(stderr, "attest: %s\n", printable(text).c_str());
}

void Output::print(const std::string& text) {
  if (!works_ || write_all(STDOUT_FILENO, text)) return;
  works_ = false;
  // A reader such as `head` that has seen enough is no reason to complain.
  if (errno != EPIPE) complain(std::string("cannot write to standard output: ") + std::strerror(errno));
}

Listing::Listing(const std::string& path) : file(path) {
  failure.file = path;
  failure.name = "/";
  readable = guarded(failure, [&] { names = Dump(path).case_names(); });
}

void select(std::vector<Listing>& listings, const std::vector<std::string>& globs) {
  if (globs.empty()) return;
  std::string all;
  for (const Listing& listing : listings)
    for (const std::string& name : listing.names) all += (all.empty() ? "" : ", ") + name;
  for (const std::string& glob : globs) {
    const bool is_used = std::ranges::any_of(listings, [&](const Listing& listing) {
      return !listing.readable ||
             std::ranges::any_of(listing.names, [&](const std::string& name) { return matches(glob, name); });
    });
    if (!is_used) throw UsageError("--case '" + glob + "' matches no case; there are: " + all);
  }
  for (Listing& listing : listings)
    std::erase_if(listing.names, [&](const std::string& name) {
      return std::ranges::none_of(globs, [&](const std::string& glob) { return matches(glob, name); });
    });
}

bool has_json_file(const Options& options) {
  return !options.json.empty() && options.json != "-";
}

bool has_report_file(const Options& options) {
  return has_json_file(options) || !options.junit.empty() || !options.html.empty();
}

void check_report_files(const Options& options) {
  std::vector<std::pair<std::string, std::string>> reports;  // option and file
  if (has_json_file(options)) reports.emplace_back("--json=", options.json);
  if (!options.junit.empty()) reports.emplace_back("--junit=", options.junit);
  if (!options.html.empty()) reports.emplace_back("--html=", options.html);
  std::vector<std::string> read = options.files;
  if (!options.baseline.empty()) read.push_back(options.baseline);
  const auto is_same = [](const std::string& a, const std::string& b) {
    std::error_code ignored;
    return a == b || std::filesystem::equivalent(a, b, ignored);
  };
  for (auto report = reports.begin(); report != reports.end(); ++report) {
    const auto& [option, path] = *report;
    for (const std::string& file : read) {
      if (is_same(file, path)) throw UsageError(option + path + " would overwrite a file that is to be read");
    }
    check_writable(path);
    for (auto other = reports.begin(); other != report; ++other) {
      if (is_same(other->second, path) && !std::filesystem::is_character_file(path))
        throw UsageError(other->first + " and " + option + " name the same file " + path);
    }
  }
}

}  // namespace attest
