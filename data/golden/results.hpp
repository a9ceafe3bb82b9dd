// What a golden holds: of every element of every output the nearest value of each element type.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "data/golden/interval.hpp"
#include "verify/case.hpp"

namespace attest::golden {

constexpr std::size_t formats = 6;  // all_formats()

/// One output. Elements are set once each, from any thread.
class Output {
 public:
  Output(std::vector<Index> extents, std::atomic<bool>& undecided);

  std::vector<Index> shape;
  /// The nearest values, as doubles, by the enumerator of their DType.
  std::array<std::vector<double>, formats> nearest;

  void set(Index at, const Interval& x);
  /// NaN, an infinity, or an exact value.
  void set(Index at, double x);

 private:
  std::atomic<bool>* undecided_;
};

class Results {
 public:
  /// wanted: the outputs to compute, as keys.
  explicit Results(const std::map<std::string, Tensor>& wanted) : wanted_(wanted) {}

  /// Null if it is not wanted.
  Output* output(const std::string& name, std::vector<Index> shape);
  /// The precision did not do: compute everything again with more.
  void mark_undecided() { undecided_ = true; }
  bool are_decided() const { return !undecided_; }
  /// Throws std::logic_error if an output that is wanted was never asked for.
  const std::map<std::string, Output>& all() const;

  /// The nearest value of a type, for formulas that round; marks where it is undecided.
  double rounded(const Interval& x, DType dtype);

 private:
  const std::map<std::string, Tensor>& wanted_;
  std::map<std::string, Output> outputs_;
  std::atomic<bool> undecided_ = false;
};

/// Computes the outputs of c.out, whose tensors need no shape, with as much precision as decides every
/// rounding. Throws std::runtime_error if the largest precision leaves one undecided, which happens only to
/// results that are exactly halfway, or zero, without the formula saying so.
class Goldens {
 public:
  explicit Goldens(const Case& c);
  const std::map<std::string, Output>& outputs() const { return outputs_; }
  long precision() const { return precision_; }

 private:
  std::map<std::string, Output> outputs_;
  long precision_ = 0;
};

// The operations: formulas over c.in and c.spec, as docs/ops.md defines them. Layouts bhsd, thd, lbm and blm.
void attention(const Case& c, Results& results);
void softmax(const Case& c, Results& results);
void activation(const Case& c, Results& results);
void norm(const Case& c, Results& results);
void layer_norm_qkv(const Case& c, Results& results);
void rope(const Case& c, Results& results);
void multihead_attention(const Case& c, Results& results);

// Keys of c.spec.
double number(const Attributes& keys, const std::string& key, double fallback);
std::string text(const Attributes& keys, const std::string& key, const std::string& fallback);
bool boolean(const Attributes& keys, const std::string& key);

/// sum x[n] y[n] of two doubles each.
Interval dot(const double* x, const double* y, Index count);

}  // namespace attest::golden
