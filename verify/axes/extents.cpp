// Named extents: tensors of a case must agree on what their symbols stand for.
#include "verify/axes/extents.hpp"

#include <sstream>

#include "core/invalid_case.hpp"

namespace attest {
namespace {

std::vector<std::string> words(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

}  // namespace

std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "[";
  for (const Index extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

void Extents::bind(const std::string& symbol, Index value, const std::string& source) {
  const auto [it, is_new] = bound_.try_emplace(symbol, Bound{value, source});
  if (is_new || it->second.value == value) return;
  throw InvalidCase(case_.object(source) + " has " + symbol + " = " + std::to_string(value) + ", but " +
                    it->second.source + " has " + symbol + " = " + std::to_string(it->second.value));
}

void Extents::unify(std::string_view pattern, const Tensor& tensor, const std::string& path) {
  const std::vector<std::string> symbols = words(pattern);
  if (symbols.size() != tensor.shape.size()) {
    throw InvalidCase(case_.object(path) + " has shape " + shape_text(tensor.shape) + "; [" +
                      std::string(pattern) + "] is expected");
  }
  for (std::size_t axis = 0; axis < symbols.size(); ++axis) {
    const Index extent = tensor.shape[axis];
    const std::size_t star = symbols[axis].find('*');
    if (star == std::string::npos) {
      bind(symbols[axis], extent, path);
      continue;
    }
    const std::string outer = symbols[axis].substr(0, star);
    const Index heads = (*this)[outer];
    if (extent % heads != 0) {
      throw InvalidCase(case_.object(path) + " has a last axis of " + std::to_string(extent) +
                        ", which is no multiple of " + outer + " = " + std::to_string(heads) + " (" +
                        bound_.at(outer).source + ")");
    }
    bind(symbols[axis].substr(star + 1), extent / heads, path);
  }
}

std::string index_text(const Tensor& tensor, Index flat) {
  std::vector<Index> at(tensor.shape.size());
  for (std::size_t axis = at.size(); axis-- > 0; flat /= tensor.shape[axis])
    at[axis] = flat % tensor.shape[axis];
  return shape_text(at);
}

}  // namespace attest
