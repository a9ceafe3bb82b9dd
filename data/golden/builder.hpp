// Puts cases together: inputs from a counter-based generator, options, and the types of the outputs.
#pragma once

#include "data/golden/golden_file.hpp"

namespace attest::golden {

/// Bits that depend on nothing but seed and counter (SplitMix64: Steele, Lea and Flood, Fast splittable
/// pseudorandom number generators, 2014).
std::uint64_t random_bits(std::uint64_t seed, std::uint64_t counter);

/// A case whose inputs have one element type unless another is named. The contract promises float64 wherever
/// something is computed: a golden is off by the rounding of its store and nothing else.
class Builder {
 public:
  /// Cases of one file differ in their names, which seed their inputs beside the file's seed.
  Builder(std::string name, std::string op, DType element, std::uint64_t seed, std::string purpose);

  Builder& spec(const std::string& key, Attribute value);
  Builder& contract(const std::string& key, Attribute value);
  Builder& step(Index step);

  // Inputs. Each value is rounded to the element type.
  Builder& normal(const std::string& name, std::vector<Index> shape, double deviation = 1, double mean = 0);
  /// Whole numbers from `least` to `most`, times `unit`.
  Builder& whole(const std::string& name, std::vector<Index> shape, int least, int most, double unit = 1);
  Builder& values(const std::string& name, std::vector<Index> shape, const std::function<double(Index)>& at);
  Builder& integers(const std::string& name, std::vector<Index> shape, std::vector<double> values);
  /// true with this probability.
  Builder& mask(const std::string& name, std::vector<Index> shape, double share);
  /// Input `name` of another case.
  Builder& same(const std::string& name, const GoldenCase& other);
  /// The input that was added last, changed.
  Builder& change(const std::string& name, const std::function<void(std::vector<double>&)>& edit);

  /// Statistics of rows are float32, or float64 with inputs of float64; all others have the element type.
  Builder& outputs(const std::vector<std::string>& names);
  Builder& output(const std::string& name, DType dtype);
  /// o and lse, which a backward pass reads. The dump does not have them: it would be judged by what it
  /// gives.
  Builder& saved();
  /// These in place of all outputs so far.
  Builder& only_outputs(const std::vector<std::string>& names);

  operator GoldenCase() const { return case_; }

 private:
  void add(const std::string& name, std::vector<Index> shape, const std::function<double(Index)>& at);
  std::uint64_t stream(const std::string& name) const;

  GoldenCase case_;
  DType element_;
  std::uint64_t seed_;
};

}  // namespace attest::golden
