// attest_recipes: measures which recipe exposes which fault, for docs/recipes.md and the suites of attest
// inputs.
#include "tests/faults/recipes.hpp"

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <stdexcept>

namespace attest::faults {
namespace {

std::vector<Zoo> all_zoos() {
  return {attention_zoo(), softmax_zoo(), norm_zoo(false), norm_zoo(true),       rope_zoo(),
          gelu_zoo(),      silu_zoo(),    sigmoid_zoo(),   layer_norm_qkv_zoo(), multihead_attention_zoo()};
}

std::string contents_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text << std::flush;
  if (!out) throw std::runtime_error(path + " cannot be written");
}

std::string suite_lines(const RecipeTable& table, const Zoo& zoo) {
  std::string text;
  for (const auto& [name, recipe] : smallest_suite(table)) {
    const Context& c = *std::ranges::find(zoo.contexts, name, &Context::name);
    text += "{\"" + zoo.op + "\", \"" + name + "." + recipe + "\", \"" + recipe + "\",\n \"" +
            c.shape_for(recipe) + "\",\n \"" + c.set + "\", \"" + c.with + "\"},\n";
  }
  return text;
}

/// The table between its markers.
void replace_table(std::string& page, const std::string& table) {
  const std::string marker = table.substr(0, table.find('\n') + 1), end_marker = "<!-- end of table -->";
  const std::size_t begin = page.find(marker);
  const std::size_t end = begin == std::string::npos ? begin : page.find(end_marker, begin);
  if (end == std::string::npos) throw std::runtime_error("the page lacks " + marker);
  page.replace(begin, end + end_marker.size() - begin, table);
}

/// Tables of these ops, or of all if none is named, are measured; suites of the others follow from the page.
void rebuild(const std::string& page_path, const std::string& suite_path, const std::set<std::string>& ops) {
  std::string page = contents_of(page_path), suite;
  for (const Zoo& zoo : all_zoos()) {
    if (!ops.empty() && !ops.contains(zoo.op)) {
      suite += suite_lines(read_table(page, zoo.op), zoo);
      continue;
    }
    const RecipeTable table =
        measure_recipes(zoo, {DType::float16, DType::bfloat16, DType::float32}, nullptr);
    for (const std::string& reason : table.reasons) std::cerr << zoo.op << ": " << reason << '\n';
    replace_table(page, page_of(table, zoo));
    suite += suite_lines(table, zoo);
  }
  write(page_path, page);
  write(suite_path, suite);
}

/// Recipes that are measured again if none is named: those that few faults, or faults of few kinds, escape.
bool is_sample(const RecipeTable& table, const std::string& recipe) {
  const bool has_large = std::ranges::find(table.recipes, "large") != table.recipes.end();
  return has_large ? recipe == "exact" || recipe == "large" : recipe == "uniform";
}

/// The suites follow from the tables, and a part of the tables is measured again: a recipe in float16, or if
/// none is named, one or two without gradients.
bool is_up_to_date(const std::string& page_path, const std::string& named) {
  const std::string page = contents_of(page_path);
  bool good = true;
  const auto complain = [&](const std::string& what) {
    std::cerr << page_path << ": " << what << '\n';
    good = false;
  };
  for (const Zoo& zoo : all_zoos()) {
    const RecipeTable table = read_table(page, zoo.op);
    std::vector<std::string> names, built_in;
    for (const auto& [context, recipe] : smallest_suite(table)) names.push_back(context + "." + recipe);
    for (const SuiteCase& c : suite_of(zoo.op)) built_in.emplace_back(c.name);
    if (names != built_in) complain("the suite of " + zoo.op + " is not the one that the table gives");

    const auto is_sampled = [&](const std::string& recipe, const std::string& context) {
      if (!named.empty()) return recipe == named;
      return is_sample(table, recipe) && !context.starts_with("backward");
    };
    const RecipeTable again = measure_recipes(zoo, {DType::float16}, is_sampled);
    if (again.faults != table.faults || again.recipes != table.recipes) {
      complain("other faults or recipes than those of " + zoo.op);
      continue;
    }
    for (std::size_t f = 0; f < table.faults.size(); ++f) {
      for (std::size_t r = 0; r < table.recipes.size(); ++r) {
        if (!is_sampled(table.recipes[r], table.contexts[f])) continue;
        const bool was = table.cells[f][r].find('h') != std::string::npos,
                   is = again.cells[f][r].find('h') != std::string::npos;
        if (was != is)
          complain(table.faults[f] + " with " + table.recipes[r] + (is ? " is" : " is not") + " caught");
      }
    }
  }
  return good;
}

}  // namespace
}  // namespace attest::faults

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  try {
    if ((words.size() == 2 || words.size() == 3) && words[0] == "--check")
      return attest::faults::is_up_to_date(words[1], words.size() == 3 ? words[2] : "") ? 0 : 1;
    if (words.size() >= 2 && words[0] != "--check")
      return attest::faults::rebuild(words[0], words[1], {words.begin() + 2, words.end()}), 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  std::cerr << "usage: attest_recipes docs/recipes.md verify/inputs/suite.inc [OP ...]\n       "
               "attest_recipes --check "
               "docs/recipes.md [RECIPE]\n";
  return 2;
}
