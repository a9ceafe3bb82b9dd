// The rotary embedding that a case describes: options, tensors, and a row of a table or a position for each
// row.
#pragma once

#include <string>
#include <vector>

#include "core/rope.hpp"
#include "verify/axes/extents.hpp"
#include "verify/bounds/rope.hpp"
#include "verify/case.hpp"
#include "verify/keys.hpp"

namespace attest {

class RopeCase {
 public:
  /// Throws InvalidCase where spec, shapes or values do not fit together. The case must outlive this object.
  explicit RopeCase(const Case& c);

  RopeSpec spec;
  RopeFrequencies frequencies{};  // if there is a spec key theta
  bounds::RopeSource source;
  bounds::RopeShape shape;

  Index rows() const { return shape.sizes.b * shape.sizes.s; }
  /// The row of the tensor with which the sequence of that row begins; 0 if the rows are packed and the case
  /// does not say where.
  Index first_row(Index row) const;
  bool has_theta() const { return has_theta_; }

  /// Whatever spec key angle_dtype says.
  void use_exact_angles();

 private:
  void read_spec();
  void read_frequencies(KeyReader& keys);
  void reject_unused_keys() const;
  void read_shapes();
  void read_positions();
  void read_table();
  void read_angles();
  void check_values() const;
  std::vector<double> counted_positions() const;
  std::vector<double> given_positions() const;

  [[noreturn]] void reject(const std::string& path, const std::string& message) const;
  [[noreturn]] void reject_key(const std::string& key, const std::string& message) const;

  const Case& case_;
  Layout layout_ = Layout::bhsd;
  Extents extents_;
  bool has_theta_ = false, has_positions_ = false;
  double position_start_ = 0;
};

}  // namespace attest
