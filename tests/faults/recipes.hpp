// Which recipe exposes which fault: measured on emulated kernels, for docs/recipes.md and the suites.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "verify/inputs/suite.hpp"
#include "verify/op.hpp"

namespace attest::faults {

/// What a case must have for some faults to matter, and the kernel that keeps its contract there.
struct Context {
  std::string name, shape, long_shape, set, with;  // long_shape: changes of the shape for the recipe "long"
  std::function<Case(const Case& inputs, DType element)> honest;

  std::string shape_for(const std::string& recipe) const {
    return recipe == "long" ? shape + "," + long_shape : shape;
  }
};

struct PlantedFault {
  std::string name, source;
  std::size_t context;  // index
  std::function<Case(const Case& inputs, DType element)> dump;
  std::vector<DType> elements;  // for which it is a fault; empty: for all
};

/// What is planted in kernels of an op.
struct Zoo {
  std::string op;
  std::vector<Context> contexts;
  std::vector<PlantedFault> faults;
};

Zoo attention_zoo();
Zoo softmax_zoo();
Zoo norm_zoo(bool is_centred);
Zoo rope_zoo();
Zoo gelu_zoo();
Zoo silu_zoo();
Zoo sigmoid_zoo();
Zoo layer_norm_qkv_zoo();
Zoo multihead_attention_zoo();

/// The element types of the table, with the letter that stands for each in a cell.
struct Lettered {
  DType element;
  char letter;
};
inline constexpr Lettered element_letters[] = {
    {DType::float16, 'h'}, {DType::bfloat16, 'b'}, {DType::float32, 's'}};

/// Rows are faults, columns recipes. A cell has the letters of the element types in which the fault is
/// caught; "-" where it changes no bit in any, "x" where recipe and context do not go together.
struct RecipeTable {
  std::string op;
  std::vector<std::string> recipes, faults, sources, contexts;
  std::vector<std::vector<std::string>> cells;
  /// Verdicts on the honest kernel by recipe: "pass", "inconclusive", "fail".
  std::map<std::string, std::map<std::string, Index>> honest;
  std::vector<std::string> reasons;  // of the inconclusive, a line each
};

/// wanted: whether a recipe is measured in a context; null: all are.
RecipeTable measure_recipes(
    const Zoo& zoo, const std::vector<DType>& elements,
    const std::function<bool(const std::string& recipe, const std::string& context)>& wanted);

/// For each context the fewest recipes that catch what any recipe catches in it, in every element type: found
/// by trying all sets, smaller ones first, then those whose recipes stand first. Pairs (context, recipe).
std::vector<std::pair<std::string, std::string>> smallest_suite(const RecipeTable& table);

/// As docs/recipes.md has it, and back. Reading throws std::runtime_error where the page has no such table.
std::string page_of(const RecipeTable& table, const Zoo& zoo);
RecipeTable read_table(const std::string& page, const std::string& op);

}  // namespace attest::faults
