// Named extents: tensors of a case must agree on what their symbols stand for.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "verify/case.hpp"

namespace attest {

/// Collects the sizes that the tensors of one case give to symbols such as "Hq" and "Sk".
class Extents {
 public:
  explicit Extents(const Case& c) : case_(c) {}

  /// Binds the symbols of `pattern` ("B Hq Sq D"; "Hq*D" is a merged axis whose first symbol is already
  /// bound) to the shape of the tensor at `path` ("in/q"). Throws InvalidCase if the rank differs or a symbol
  /// is bound otherwise, naming both tensors.
  void unify(std::string_view pattern, const Tensor& tensor, const std::string& path);

  /// Binds a symbol to what a spec key or another source says.
  void bind(const std::string& symbol, Index value, const std::string& source);

  bool has(const std::string& symbol) const { return bound_.contains(symbol); }
  Index operator[](const std::string& symbol) const { return bound_.at(symbol).value; }

 private:
  struct Bound {
    Index value;
    std::string source;
  };
  const Case& case_;
  std::map<std::string, Bound> bound_;
};

/// "[2, 8, 577, 64]"
std::string shape_text(const std::vector<Index>& shape);

/// "[0, 3, 17, 2]", the index of the element at `flat` of a row-major tensor.
std::string index_text(const Tensor& tensor, Index flat);

}  // namespace attest
