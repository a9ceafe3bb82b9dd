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

/// A tensor whose rows can be had in any order: the same values, whichever are asked for.
struct GeneratedTensor {
  std::string type_name;       // "float16", "int32", "bool"
  std::optional<DType> dtype;  // absent for integers and booleans
  std::vector<Index> shape;
  /// Values of row n, which are then rounded to the element type. Callable from several threads.
  std::function<void(Index n, std::span<double> row)> fill;
  Index parts = 1;  // rows in the last axis: as many as heads that are merged into it

  Index width() const { return shape.back() / parts; }
  Index rows() const {
    Index n = parts;
    for (std::size_t axis = 0; axis + 1 < shape.size(); ++axis) n *= shape[axis];
    return n;
  }
  /// Row n as it is stored. Throws InvalidCase where an element is too large for its type.
  void stored_row(Index n, std::span<double> row) const;
  /// Rows first, first + 1, ..., as many as there is room for, by all threads.
  void stored_rows(Index first, std::span<double> rows) const;
  /// Without its values, with those of a part, with all. Throw InvalidCase where memory does not suffice.
  Tensor header() const { return {type_name, dtype, shape, {}}; }
  Tensor part(const Selection& part) const;
  Tensor whole() const;
};

/// What the user asks for.
struct InputRequest {
  std::string recipe;
  std::map<std::string, Index> shape;  // by symbol: {"Sq", 128}
  DType dtype = DType::float16;
  std::uint64_t seed = 1;
  Attributes spec, contract;
  std::set<std::string> with;  // optional inputs
};

/// A case without outputs.
struct GeneratedCase {
  std::string name, op;
  InputRequest request;  // with all that it left open
  Attributes about;
  std::map<std::string, GeneratedTensor> in;
};

/// The same with all values in memory.
Case realised(const GeneratedCase& c);

/// Raised whenever a recipe makes other bits.
constexpr std::int64_t generator_version = 1;

GeneratedTensor generated_tensor(DType dtype, std::vector<Index> shape,
                                 std::function<void(Index n, std::span<double> row)> fill, Index parts = 1);
GeneratedTensor generated_integers(std::vector<Index> values);
/// Normal numbers of the stream `name`, times `deviation`, plus `mean`.
GeneratedTensor normal_tensor(std::uint64_t seed, const std::string& name, DType dtype,
                              std::vector<Index> shape, double mean = 0, double deviation = 1);

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

/// The extents of a request: those that it gives, and what stands in for the others, which then becomes part
/// of it.
class RequestedExtents {
 public:
  /// overrides: fallbacks of this recipe.
  RequestedExtents(const std::vector<InputExtent>& extents, InputRequest& request,
                   const std::map<std::string, std::string>& overrides = {});
  Index operator[](const std::string& symbol) const { return value_.at(symbol); }

 private:
  std::map<std::string, Index> value_;
};

}  // namespace attest
