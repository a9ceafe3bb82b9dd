// Writes cases for a device to run, or lists what there is to write.
#include "verify/program/inputs_command.hpp"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "verify/axes/extents.hpp"
#include "verify/dump/writer.hpp"
#include "verify/inputs/suite.hpp"
#include "verify/op.hpp"
#include "verify/program/ops_command.hpp"
#include "verify/program/program.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

int list(const std::string& op) {
  Output output;
  const Index width = style_of(STDOUT_FILENO).width;
  std::string text;
  for (const Op& candidate : all_ops()) {
    if (op.empty() || candidate.name == op)
      text += (text.empty() ? "" : "\n") + text_of_recipes(candidate, width > 0 ? width : 80);
  }
  output.print(text);
  return output.status(0);
}

GeneratedCase generated(const Op& op, const RequestText& text, const std::string& name) {
  GeneratedCase c = op.generated.make(parse_request(op, text));
  c.name = name;
  return c;
}

std::vector<GeneratedCase> suite_cases(const InputsOptions& options) {
  const Op& op = op_of(options.suite);
  const std::vector<SuiteCase> all = suite_of(op.name);
  if (all.empty()) throw UsageError("no suite was measured for " + options.suite);
  std::vector<GeneratedCase> cases;
  for (const SuiteCase& c : all) {
    const std::string name(c.name);
    if (!options.globs.empty() && std::ranges::none_of(options.globs, [&](const std::string& glob) {
          return fnmatch(glob.c_str(), name.c_str(), 0) == 0;
        }))
      continue;
    RequestText text = c.request();
    text.dtype = options.text.dtype;
    text.seed = options.text.seed;
    cases.push_back(generated(op, text, name));
  }
  if (!cases.empty()) return cases;
  std::string names;
  for (const SuiteCase& c : all) names += (names.empty() ? "" : ", ") + std::string(c.name);
  throw UsageError("--case matches no case of the suite; there are: " + names);
}

void print_cases(const std::vector<GeneratedCase>& cases, const std::string& file, Output& output) {
  std::string text = printable(file) + "\n";
  for (const GeneratedCase& c : cases) {
    std::string tensors;
    for (const auto& [name, tensor] : c.in)
      tensors += (tensors.empty() ? "" : ", ") + name + " " + shape_text(tensor.shape);
    text += wrapped(c.name + "  " + c.op + ": " + tensors, 80, 2, 4);
  }
  output.print(text);
}

}  // namespace

int make_inputs(const InputsOptions& options) {
  const bool is_suite = !options.suite.empty();
  if (!options.op.empty()) op_of(options.op);
  if (options.lists || (!is_suite && options.recipes.empty() && options.file.empty())) {
    if (is_suite || options.file.size() + options.recipes.size() > 0)
      throw UsageError("inputs --list writes no file");
    return list(options.op);
  }
  if (options.file.empty()) throw UsageError("inputs: -o FILE is missing");
  if (options.describes &&
      options.text.seed > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    throw UsageError("inputs --describe: --seed must be below 2^63");
  std::vector<GeneratedCase> cases;
  try {
    if (is_suite) {
      if (!options.op.empty() || !options.recipes.empty() || !options.text.shape.empty() ||
          !options.text.set.empty() || !options.text.with.empty())
        throw UsageError("inputs --suite " + options.suite +
                         " takes --case, --dtype and --seed: recipes, shapes and keys are the suite's own");
      cases = suite_cases(options);
    } else {
      if (options.op.empty()) throw UsageError("inputs: which operation? There are: " + names_of_ops());
      if (options.recipes.empty())
        throw UsageError("inputs: --recipe is missing; attest inputs " + options.op + " lists them");
      if (!options.globs.empty()) throw UsageError("inputs: --case goes with --suite");
      for (const std::string& recipe : options.recipes) {
        if (std::ranges::count(options.recipes, recipe) > 1)
          throw UsageError("inputs: --recipe " + recipe + " is given twice");
        RequestText text = options.text;
        text.recipe = recipe;
        cases.push_back(generated(op_of(options.op), text, recipe));
      }
    }
    write_cases(options.file, options.replaces, cases,
                options.describes ? InputForm::described : InputForm::stored);
  } catch (const InvalidCase& error) {  // here of options, not of a file
    throw UsageError(error.what());
  }
  Output output;
  print_cases(cases, options.file, output);
  return output.status(0);
}

}  // namespace attest
