// The tables of docs/recipes.md, written and read.
#include <algorithm>
#include <set>
#include <sstream>
#include <stdexcept>

#include "tests/faults/recipes.hpp"

namespace attest::faults {
namespace {

std::string begin_of(const std::string& op) {
  return "<!-- table: attest_recipes, " + op + " -->\n";
}
constexpr const char* end_marker = "<!-- end of table -->";

std::string row_of(const std::vector<std::string>& cells) {
  std::string row = "|";
  for (const std::string& cell : cells) row += " " + cell + (cell.empty() ? "|" : " |");
  return row + "\n";
}

std::vector<std::string> cells_of(const std::string& row) {
  std::vector<std::string> cells;
  std::istringstream stream(row.substr(1));
  for (std::string cell; std::getline(stream, cell, '|');) {
    const std::size_t first = cell.find_first_not_of(' '), last = cell.find_last_not_of(' ');
    cells.push_back(first == std::string::npos ? "" : cell.substr(first, last - first + 1));
  }
  return cells;
}

bool is_caught(const std::string& cell) {
  return !cell.empty() && cell != "-" && cell != "x";
}

/// A line for each recipe: how many faults it exposes, in how many it is alone, honest verdicts.
std::string summary_of(const RecipeTable& table) {
  std::string text = row_of({"recipe", "exposes", "alone", "honest: pass", "inconclusive", "fail"}) +
                     "|---|--:|--:|--:|--:|--:|\n";
  std::size_t by_any = 0;
  std::vector<std::size_t> exposes(table.recipes.size()), alone(table.recipes.size());
  for (const std::vector<std::string>& cells : table.cells) {
    const auto count = std::ranges::count_if(cells, is_caught);
    by_any += count > 0;
    for (std::size_t r = 0; r < cells.size(); ++r) {
      exposes[r] += is_caught(cells[r]);
      alone[r] += is_caught(cells[r]) && count == 1;
    }
  }
  std::map<std::string, Index> all;
  for (std::size_t r = 0; r < table.recipes.size(); ++r) {
    const auto found = table.honest.find(table.recipes[r]);
    std::map<std::string, Index> honest =
        found == table.honest.end() ? std::map<std::string, Index>{} : found->second;
    for (const auto& [verdict, n] : honest) all[verdict] += n;
    text += row_of({table.recipes[r], std::to_string(exposes[r]), std::to_string(alone[r]),
                    std::to_string(honest["pass"]), std::to_string(honest["inconclusive"]),
                    std::to_string(honest["fail"])});
  }
  return text + row_of({"**any of " + std::to_string(table.recipes.size()) + "**",
                        std::to_string(by_any) + " of " + std::to_string(table.faults.size()), "",
                        std::to_string(all["pass"]), std::to_string(all["inconclusive"]),
                        std::to_string(all["fail"])});
}

std::string suite_text(const RecipeTable& table, const Zoo& zoo) {
  std::string text = row_of({"case of the suite", "--shape", "--set", "--with"}) + "|---|---|---|---|\n";
  const auto code = [](const std::string& x) { return x.empty() ? x : "`" + x + "`"; };
  for (const auto& [name, recipe] : smallest_suite(table)) {
    const Context& c = *std::ranges::find(zoo.contexts, name, &Context::name);
    text += row_of({name + "." + recipe, code(c.shape_for(recipe)), code(c.set), code(c.with)});
  }
  return text;
}

}  // namespace

std::string page_of(const RecipeTable& table, const Zoo& zoo) {
  std::string text = begin_of(table.op) + "\n" + summary_of(table) + "\n" + suite_text(table, zoo) + "\n";
  std::vector<std::string> head = {"fault", "context"}, line = {"---", "---"};
  for (const std::string& recipe : table.recipes) head.push_back(recipe), line.push_back(":-:");
  text += row_of(head) + row_of(line);
  for (std::size_t f = 0; f < table.faults.size(); ++f) {
    std::vector<std::string> cells = {table.faults[f], table.contexts[f]};
    cells.insert(cells.end(), table.cells[f].begin(), table.cells[f].end());
    text += row_of(cells);
  }
  return text + "\n" + end_marker;
}

RecipeTable read_table(const std::string& page, const std::string& op) {
  const std::size_t begin = page.find(begin_of(op)), end = page.find(end_marker, begin);
  if (begin == std::string::npos || end == std::string::npos) throw std::runtime_error("no table for " + op);
  std::istringstream lines(page.substr(begin, end - begin));
  RecipeTable table;
  table.op = op;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.front() != '|') continue;
    const std::vector<std::string> cells = cells_of(line);
    if (cells[0] == "fault") {
      table.recipes.assign(cells.begin() + 2, cells.end());
    } else if (!table.recipes.empty() && cells[0] != "---") {
      table.faults.push_back(cells[0]);
      table.contexts.push_back(cells[1]);
      table.cells.emplace_back(cells.begin() + 2, cells.end());
    }
  }
  if (table.faults.empty()) throw std::runtime_error("the table for " + op + " is empty");
  return table;
}

}  // namespace attest::faults
