// A case as a dump holds it: tensors with exact values, and attributes that nobody has interpreted yet.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/dtype.hpp"
#include "core/view.hpp"

namespace attest {

struct Tensor {
  std::string type_name;       // "float16", "int64", "bool": for reports
  std::optional<DType> dtype;  // absent for integers and booleans
  std::vector<Index> shape;
  std::vector<double> values;  // row-major, exact; empty where only headers were read

  Index size() const {
    Index n = 1;
    for (const Index extent : shape) n *= extent;
    return n;
  }
};

/// Along each axis of a tensor, the indices that are wanted, ascending.
using Selection = std::vector<std::vector<Index>>;

using Attribute = std::variant<std::string, double, std::int64_t, bool>;
using Attributes = std::map<std::string, Attribute>;

struct Case {
  std::string file;  // as the user named it
  std::string name;  // the group's name, "/" for a case at the root
  std::string op;
  Attributes spec, contract, about;
  Attributes recipe;  // what makes the inputs, where the file describes them (verify/inputs/described.hpp)
  std::map<std::string, Tensor> in, out;

  // A part of a larger case (verify/verdict/row_sample.hpp) holds the rows `row` of `rows`, and one of
  // `parts` such shares.
  std::vector<Index> row;  // empty: all of them
  Index rows = 0, parts = 1;
  // For sums over rows it is a block of rows of one of `heads` query heads, and holds the keys `key` of
  // `keys`, of which `past` stand before k and are not in it.
  std::vector<Index> key;  // empty: all of them
  Index keys = 0, past = 0, heads = 1;

  /// The tensor in/port or out/port; null if there is none.
  const Tensor* input(const std::string& port) const { return find(in, port); }
  const Tensor* output(const std::string& port) const { return find(out, port); }

  /// "file: /case/in/q", for messages; path is relative to the case, such as "in/q", and empty for the case
  /// itself.
  std::string object(const std::string& path) const {
    const std::string group = name == "/" ? "" : "/" + name;
    return file + ": " + (path.empty() && !group.empty() ? group : group + "/" + path);
  }

 private:
  static const Tensor* find(const std::map<std::string, Tensor>& tensors, const std::string& port) {
    const auto it = tensors.find(port);
    return it == tensors.end() ? nullptr : &it->second;
  }
};

}  // namespace attest
