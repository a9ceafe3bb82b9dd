// Pairs the cases of two files, compares and reports.
#include "verify/program/compare_command.hpp"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <optional>

#include "verify/atomic_file.hpp"
#include "verify/dump/compare_dumps.hpp"

namespace attest {
namespace {

struct Pair {
  std::string name;                       // in A, or in B where A has none
  std::vector<std::string> counterparts;  // in B
  std::string error;                      // why there is nothing to compare
};

std::string list_of(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list.empty() ? "none" : list;
}

Pair unpaired(const std::string& name, const Listing& with, const Listing& without) {
  return {name,
          {},
          with.file + ": /" + name + " has no counterpart in " + without.file +
              "; its cases: " + list_of(without.names)};
}

std::vector<Pair> pairs_of(const Listing& a, const Listing& b, bool batch) {
  if (batch) {
    if (a.names.size() != 1 || b.names.empty())
      throw UsageError("--batch takes one case of " + a.file + " (chosen: " + list_of(a.names) +
                       ") and one or more of " + b.file + " (chosen: " + list_of(b.names) +
                       "); --case chooses");
    return {{a.names.front(), b.names, ""}};
  }
  if (a.names.size() == 1 && b.names.size() == 1) return {{a.names.front(), b.names, ""}};
  std::vector<std::string> all;
  std::ranges::set_union(a.names, b.names, std::back_inserter(all));
  std::vector<Pair> pairs;
  for (const std::string& name : all) {
    if (!std::ranges::binary_search(b.names, name)) {
      pairs.push_back(unpaired(name, a, b));
    } else if (!std::ranges::binary_search(a.names, name)) {
      pairs.push_back(unpaired(name, b, a));
    } else {
      pairs.push_back({name, {name}, ""});
    }
  }
  return pairs;
}

CaseDifference failure_of(const CaseFindings& failure) {
  CaseDifference d;
  d.name = failure.name;
  d.verdict = failure.verdict;
  d.error = failure.error;
  return d;
}

}  // namespace

int compare(const Options& options) {
  check_report_files(options);
  const std::string &file_a = options.files[0], &file_b = options.files[1];
  std::vector<Listing> listings{Listing(file_a), Listing(file_b)};
  select(listings, options.globs);

  std::vector<CaseDifference> cases;
  std::optional<Dump> a, b;
  for (Listing& listing : listings) {
    std::optional<Dump>& dump = &listing == &listings.front() ? a : b;
    if (listing.readable) guarded(listing.failure, [&] { dump.emplace(listing.file); });
    if (!dump) cases.push_back(failure_of(listing.failure));
  }
  if (cases.empty()) {
    for (const Pair& pair : pairs_of(listings[0], listings[1], options.batch)) {
      CaseFindings failure;
      failure.file = file_a;
      failure.name = pair.name;
      CaseDifference found;
      const bool compared = guarded(failure, [&] {
        if (!pair.error.empty()) throw InvalidCase(pair.error);
        found = compare_cases(*a, pair.name, *b, pair.counterparts);
      });
      cases.push_back(compared ? found : failure_of(failure));
    }
  }

  const std::string json = json_of_comparison(file_a, file_b, cases, ATTEST_VERSION);
  if (has_json_file(options)) write_whole(options.json, json);
  Output output;
  output.print(options.json == "-" ? json
                                   : text_of_comparison(file_a, file_b, cases, style_of(STDOUT_FILENO)));
  return output.status(exit_status(std::ranges::max(cases, {}, &CaseDifference::verdict).verdict));
}

}  // namespace attest
