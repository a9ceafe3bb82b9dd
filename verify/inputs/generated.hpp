// Inputs that are computed row by row, for kernels to run on: what a recipe makes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "verify/case.hpp"
#include "verify/inputs/random_stream.hpp"

namespace attest {

/// A tensor whose rows along its last axis can be had in any order.
struct GeneratedTensor {
  std::string type_name;       // "float16", "int32", "bool"
  std::optional<DType> dtype;  // absent for integers and booleans
  std::vector<Index> shape;
  /// Values of row n, which are then rounded to the element type. Callable from several threads.
  std::function<void(Index n, std::span<double> row)> fill;

  Index width() const { return shape.back(); }
  Index rows() const {
    Index n = 1;
    for (std::size_t axis = 0; axis + 1 < shape.size(); ++axis) n *= shape[axis];
    return n;
  }
  /// Row n as it is stored. Throws InvalidCase where an element is too large for its type.
  void stored_row(Index n, std::span<double> row) const;
};

/// A case without outputs.
struct GeneratedCase {
  std::string name, op;
  Attributes spec, contract, about;
  std::map<std::string, GeneratedTensor> in;
};

/// The same with all values in memory.
Case realised(const GeneratedCase& c);

GeneratedTensor generated_tensor(DType dtype, std::vector<Index> shape,
                                 std::function<void(Index n, std::span<double> row)> fill);
GeneratedTensor generated_integers(std::vector<Index> values);
/// Normal numbers of the stream `name`, times `deviation`, plus `mean`.
GeneratedTensor normal_tensor(std::uint64_t seed, const std::string& name, DType dtype,
                              std::vector<Index> shape, double mean = 0, double deviation = 1);

/// What the user asks for.
struct InputRequest {
  std::string recipe;
  std::map<std::string, Index> shape;  // by symbol: {"Sq", 128}
  DType dtype = DType::float16;
  std::uint64_t seed = 1;
  Attributes spec, contract;
  std::set<std::string> with;  // optional inputs
};

struct InputRecipe {
  std::string_view name, purpose;  // purpose: what is special about it, and which faults it exposes
};

/// A symbol of the op's extents. fallback: a number or another symbol.
struct InputExtent {
  std::string_view symbol, fallback, meaning;
};

/// The part of an op's record that makes its inputs. Without recipes there are none.
struct OpInputs {
  std::vector<InputExtent> extents;
  std::vector<std::string_view> optional;  // inputs that are made only on request
  std::vector<InputRecipe> recipes;
  /// The request's recipe, keys and symbols are among the above. Throws InvalidCase where they do not fit.
  GeneratedCase (*make)(const InputRequest&) = nullptr;
};

/// The extents of a request: those that it gives, and what stands in for the others.
class RequestedExtents {
 public:
  /// overrides: fallbacks of this recipe.
  RequestedExtents(const std::vector<InputExtent>& extents, const InputRequest& request,
                   const std::map<std::string, std::string>& overrides = {});
  Index operator[](const std::string& symbol) const { return value_.at(symbol); }

 private:
  std::map<std::string, Index> value_;
};

}  // namespace attest
