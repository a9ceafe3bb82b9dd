// attest_coverage: puts every semantics of every op to the test and writes docs/coverage.md.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>

#include "tests/coverage/check.hpp"
#include "tests/coverage/exercised.hpp"
#include "verify/text.hpp"

namespace attest::coverage {
namespace {

constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

const char* const introduction = R"(# Which semantics are checked, and against what?

This page is the output of a test. Each row is one small case of an op, run in three element types, and says that

- the exact value of every output, element by element, is that of an oracle: a second implementation in long double that
  shares no code with the verifier and its reference. They differ by no more than the certified error of the value and
  the oracle's own. *open* is the largest share of a bound that these two make up: what the oracle could not see. It is
  largest where a contract declares float64: bounds are then close to the spacing of long double, or of double, in which
  ops other than attention compute their values;
- every bound is finite, and 0 only where a value has to be met exactly;
- the oracle's values, rounded to the element types, get the verdict pass: decoys, the wrong answers that an op lists,
  would have made it inconclusive;
- one element 3 bounds off, or one ulp where the value is exact, makes its output fail, and so does a NaN.

Behind the name of an output stands its bound for cases in float16, bfloat16 and float32: the median over the elements in
units of the last place of the output's own element type. An exact result that is rounded once is within 0.5. Statistics,
`s`, `dsink` and the norms' `dweight` and `dbias` are stored in float32 in all three. *exact*: the value has to be met bit
for bit.

Below each table stands how much of the op's record the rows exercise: every input, present and, if it is optional,
absent; every output; every number of axes that a port offers; every value of every key of `spec` and `contract` that is
a choice, and every other key at a value that is not its default. A key of `spec` counts in rows whose oracle would answer
otherwise under another value. Where an op has gradients, inputs and keys count in the forward and in the backward pass
apart, but for inputs that a forward pass writes. A part that no row exercises is a hole, and fails the test.

What rows do not show: other shapes, magnitudes and combinations; the accuracy of real kernels
([device_kernels.md](device_kernels.md)); and what hides inside the bounds ([limits.md](limits.md)).

```
build/release/tests/attest_coverage docs/coverage.md           # writes this page
build/release/tests/attest_coverage --check docs/coverage.md   # fails if it is out of date
```
)";

/// Outputs of one feature, in all element types.
using Bounds = std::vector<std::pair<std::string, std::vector<double>>>;

struct Row {
  Bounds bounds;
  double open_share = 0;
};

/// Two significant digits: what is left of a last bit in which two mathematics libraries differ.
std::string figure(double value) {
  return value < 100 ? number_text(value, 2) : std::to_string(std::llround(std::stod(number_text(value, 2))));
}

std::string bound_text(const std::vector<double>& bounds) {
  if (std::all_of(bounds.begin(), bounds.end(), [](double b) { return b == 0; })) return " exact";
  std::string text;
  for (const double b : bounds) text += b == 0 ? " exact" : " " + figure(b);
  return text;
}

std::string cell(const Op& op, const Row& row, bool gradients) {
  std::string text;
  for (const auto& [name, bounds] : row.bounds) {
    if (is_gradient(op, name) != gradients) continue;
    text += (text.empty() ? "`" : " · `") + name + "`" + bound_text(bounds);
  }
  return text.empty() ? "-" : text;
}

/// The section of one op. Problems and holes are printed and counted.
class Section {
 public:
  Section(const Suite& suite, const Op& op) : suite_(suite), op_(op), holes_(promised(op)) {
    parts_ = holes_.size();
  }

  std::string write(Index& problems) {
    std::map<std::string, Row> rows;
    std::vector<std::string> names;  // in order
    for (const DType element : elements) {
      for (const Feature& feature : suite_.features(element)) {
        if (!rows.contains(feature.name)) names.push_back(feature.name);
        const Checked checked = check(suite_, feature);
        for (const std::string& problem : checked.problems) {
          std::cerr << op_.name << ", " << feature.name << ", " << format_of(element).name << ": " << problem
                    << '\n';
          ++problems;
        }
        add(rows[feature.name], checked);
        if (!checked.problems.empty() || holes_.empty()) continue;
        for (const std::string& item : exercised(suite_, op_, feature.c)) holes_.erase(item);
      }
    }
    for (const std::string& hole : holes_) {
      std::cerr << op_.name << ": no feature exercises " << hole << '\n';
      ++problems;
    }
    std::string text = "\n## " + std::string(op_.name) + "\n\n" + std::string(op_.summary) +
                       "\n\n| semantics | forward | backward | open |\n|---|---|---|---|\n";
    for (const std::string& name : names) {
      const Row& row = rows[name];
      text += "| " + name + " | " + cell(op_, row, false) + " | " + cell(op_, row, true) + " | " +
              number_text(row.open_share, 1) + " |\n";
    }
    return text + "\n" + std::to_string(parts_ - holes_.size()) + " of " + std::to_string(parts_) +
           " parts of the record are exercised; the oracle is `" + std::string(suite_.oracle) + "`.\n";
  }

 private:
  static void add(Row& row, const Checked& checked) {
    for (const OutputCheck& output : checked.outputs) {
      auto bounds = std::find_if(row.bounds.begin(), row.bounds.end(),
                                 [&](const auto& entry) { return entry.first == output.name; });
      if (bounds == row.bounds.end()) {
        row.bounds.push_back({output.name, {}});
        bounds = std::prev(row.bounds.end());
      }
      bounds->second.push_back(output.bound_in_ulp);
      row.open_share = std::max(row.open_share, output.open_share);
    }
  }

  const Suite& suite_;
  const Op& op_;
  Items holes_;
  std::size_t parts_;
};

int run(const std::string& path, bool only_checks) {
  omp_set_num_threads(1);  // these cases are too small to share
  Index problems = 0;
  std::string page = introduction;
  const std::span<const Suite> suites = all_suites();
  for (const Op& op : all_ops()) {
    const auto suite =
        std::find_if(suites.begin(), suites.end(), [&](const Suite& s) { return s.op == op.name; });
    if (suite == suites.end()) {
      std::cerr << op.name << " has no features\n";
      ++problems;
      continue;
    }
    page += Section(*suite, op).write(problems);
  }
  if (problems > 0) {
    std::cerr << problems << " problems; " << path << " is left as it is\n";
    return 1;
  }
  if (only_checks) {
    std::ifstream file(path, std::ios::binary);
    const std::string old{std::istreambuf_iterator<char>(file), {}};
    if (old == page) return 0;
    std::istringstream old_lines(old), lines(page);
    for (std::string was, is; std::getline(lines, is);) {
      if (!std::getline(old_lines, was)) was = "";
      if (was != is) std::cerr << "- " << was << "\n+ " << is << '\n';
    }
    std::cerr << path << " is out of date: run attest_coverage " << path << '\n';
    return 1;
  }
  std::ofstream file(path, std::ios::binary);
  file << page << std::flush;
  if (!file) std::cerr << path << " cannot be written\n";
  return file ? 0 : 1;
}

}  // namespace

std::span<const Suite> all_suites() {
  static const Suite all[] = {
      attention_suite, softmax_suite,    gelu_suite,           silu_suite, sigmoid_suite,
      rms_norm_suite,  layer_norm_suite, layer_norm_qkv_suite, rope_suite, multihead_attention_suite};
  return all;
}

}  // namespace attest::coverage

int main(int count, char** arguments) {
  const bool only_checks = count == 3 && std::string(arguments[1]) == "--check";
  if (count != 2 && !only_checks) {
    std::cerr << "usage: attest_coverage [--check] PATH\n";
    return 2;
  }
  return attest::coverage::run(arguments[count - 1], only_checks);
}
