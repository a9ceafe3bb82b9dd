// Measures which recipe exposes which fault, and finds the smallest suites.
#include <algorithm>
#include <bit>
#include <bitset>
#include <cmath>

#include "core/invalid_case.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/faults/recipes.hpp"
#include "verify/compare.hpp"

namespace attest::faults {
namespace {

const Op& op_named(std::string_view name) {
  return *std::ranges::find(all_ops(), name, [](const Op& op) { return op.name; });
}

bool has_equal_bits(const Case& a, const Case& b) {
  for (const auto& [name, tensor] : a.out) {
    const std::vector<double>& other = b.out.at(name).values;
    for (std::size_t n = 0; n < other.size(); ++n) {
      const double x = tensor.values[n], y = other[n];
      if (x != y && !(std::isnan(x) && std::isnan(y))) return false;
    }
  }
  return true;
}

/// Whether the verdict is fail. Nothing is diagnosed, which would take most of the time. In one thread.
bool fails(const Op& op, const Case& c) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const std::unique_ptr<Problem> problem = op.read(c);
  const std::vector<Expected> expected = problem->expect([](double) {});
  omp_set_num_threads(threads);
  return std::ranges::any_of(expected, [](const Expected& e) { return compare(e).verdict == Verdict::fail; });
}

enum class Outcome { not_measured, equal, missed, caught };

/// One recipe in one context and element type.
struct Task {
  std::size_t recipe, context;
  Lettered element;
  std::string verdict, reason;  // of the honest kernel; empty where the recipe does not fit
  std::vector<std::pair<std::size_t, Outcome>> outcomes;  // by fault
};

void run(Task& task, const Zoo& zoo, const Op& op) {
  const Context& context = zoo.contexts[task.context];
  const std::string_view recipe = op.generated.recipes[task.recipe].name;
  const std::string shape = context.shape_for(std::string(recipe));
  const SuiteCase c{op.name, "", recipe, shape, context.set, context.with};
  RequestText text = c.request();
  text.dtype = format_of(task.element.element).name;
  Case inputs;
  try {
    // Emulated kernels know no lengths in these.
    if (c.recipe == "padding" &&
        (context.with.find("do") != std::string::npos || context.with.find("bias") != std::string::npos))
      return;
    inputs = realised(op.generated.make(parse_request(op, text)));
  } catch (const InvalidCase&) {
    return;
  }
  const Case honest = context.honest(inputs, task.element.element);
  const CaseFindings findings = emulate::judged(honest);
  task.verdict = name_of(findings.verdict);
  if (findings.verdict != Verdict::pass) task.reason = emulate::summary(findings);
  for (std::size_t f = 0; f < zoo.faults.size(); ++f) {
    const PlantedFault& fault = zoo.faults[f];
    const bool concerns = fault.elements.empty() ||
                          std::ranges::find(fault.elements, task.element.element) != fault.elements.end();
    if (fault.context != task.context || !concerns) continue;
    const Case broken = fault.dump(inputs, task.element.element);
    // Where the honest kernel fails, that a broken one does says nothing.
    const Outcome outcome = findings.verdict == Verdict::fail ? Outcome::missed
                            : has_equal_bits(honest, broken)  ? Outcome::equal
                            : fails(op, broken)               ? Outcome::caught
                                                              : Outcome::missed;
    task.outcomes.emplace_back(f, outcome);
  }
}

}  // namespace

RecipeTable measure_recipes(const Zoo& zoo, const std::vector<DType>& elements,
                            const std::function<bool(const std::string&, const std::string&)>& wanted) {
  const Op& op = op_named(zoo.op);
  RecipeTable table;
  table.op = zoo.op;
  for (const InputRecipe& recipe : op.generated.recipes) table.recipes.emplace_back(recipe.name);
  for (const PlantedFault& fault : zoo.faults) {
    table.faults.push_back(fault.name);
    table.sources.push_back(fault.source);
    table.contexts.push_back(zoo.contexts[fault.context].name);
  }
  table.cells.assign(table.faults.size(), std::vector<std::string>(table.recipes.size(), "x"));

  std::vector<Task> tasks;
  for (std::size_t recipe = 0; recipe < table.recipes.size(); ++recipe)
    for (std::size_t context = 0; context < zoo.contexts.size(); ++context)
      for (const Lettered& element : element_letters) {
        const bool is_asked = std::ranges::find(elements, element.element) != elements.end();
        if (is_asked && (!wanted || wanted(table.recipes[recipe], zoo.contexts[context].name)))
          tasks.push_back({recipe, context, element, "", "", {}});
      }
#pragma omp parallel for schedule(dynamic)
  for (std::size_t n = 0; n < tasks.size(); ++n) run(tasks[n], zoo, op);

  for (const Task& task : tasks) {
    if (task.verdict.empty()) continue;
    const std::string& recipe = table.recipes[task.recipe];
    ++table.honest[recipe][task.verdict];
    if (!task.reason.empty())
      table.reasons.push_back(recipe + ", " + zoo.contexts[task.context].name + ", " +
                              std::string(format_of(task.element.element).name) + ": " + task.reason);
    for (const auto& [fault, outcome] : task.outcomes) {
      std::string& cell = table.cells[fault][task.recipe];
      if (cell == "x") cell = "-";
      if (outcome == Outcome::missed && cell == "-") cell = "";
      if (outcome == Outcome::caught) cell = (cell == "-" ? "" : cell) + task.element.letter;
    }
  }
  return table;
}

std::vector<std::pair<std::string, std::string>> smallest_suite(const RecipeTable& table) {
  std::vector<std::pair<std::string, std::string>> suite;
  std::vector<std::string> contexts;
  for (const std::string& context : table.contexts)
    if (std::ranges::find(contexts, context) == contexts.end()) contexts.push_back(context);
  for (const std::string& context : contexts) {
    // What each recipe catches: pairs (fault, element type), numbered.
    std::map<std::string, std::size_t> number;
    std::vector<std::bitset<1024>> caught(table.recipes.size());
    std::bitset<1024> all;
    for (std::size_t f = 0; f < table.faults.size(); ++f) {
      if (table.contexts[f] != context) continue;
      for (std::size_t r = 0; r < table.recipes.size(); ++r) {
        for (const char letter : table.cells[f][r]) {
          if (letter == '-' || letter == 'x') continue;
          const std::size_t n = number.try_emplace(table.faults[f] + letter, number.size()).first->second;
          caught[r].set(n);
          all.set(n);
        }
      }
    }
    if (all.none()) continue;
    unsigned best = (1u << table.recipes.size()) - 1;
    for (unsigned chosen = 1; chosen < 1u << table.recipes.size(); ++chosen) {
      if (std::popcount(chosen) >= std::popcount(best)) continue;
      std::bitset<1024> covered;
      for (std::size_t r = 0; r < caught.size(); ++r)
        if (chosen >> r & 1) covered |= caught[r];
      if (covered == all) best = chosen;
    }
    for (std::size_t r = 0; r < caught.size(); ++r)
      if (best >> r & 1) suite.emplace_back(context, table.recipes[r]);
  }
  return suite;
}

}  // namespace attest::faults
