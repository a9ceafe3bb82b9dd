// The normalisation that a case describes: options, shapes, the contract, and x with the residual added.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/norm.hpp"
#include "verify/bounds/norm_row.hpp"
#include "verify/case.hpp"
#include "verify/contract/reader.hpp"
#include "verify/op.hpp"

namespace attest {

class NormCase {
 public:
  /// is_centred: LayerNorm. Throws InvalidCase where spec, contract, shapes or values do not fit together.
  /// The case must outlive this object.
  NormCase(const Case& c, ContractReader& keys, bool is_centred);
  NormCase(const NormCase&) = delete;
  NormCase& operator=(const NormCase&) = delete;

  NormSpec spec;
  NormInputs in;
  View<const double, 2> dy;  // [R, N]; empty without gradients
  bounds::NormContract contract;

  bool rounds_sum() const { return rounds_sum_; }
  /// x + residual, rounded if it should not be, and not if it should; empty without a residual.
  std::vector<double> other_sum() const;

  /// "float32, variance in two passes"
  std::string contract_text() const;

 private:
  void read_spec();
  void read_contract(ContractReader& keys);
  double sum_rounding() const;
  void read_shapes();
  void read_given_statistics();
  bool has_given_statistics() const { return case_.input("rstd") || case_.input("mean"); }
  void check_values() const;
  void add_residual();
  void check_spread() const;
  void require_shape(const std::string& path, const Tensor& tensor, const std::vector<Index>& shape,
                     const std::string& of) const;

  const Case& case_;
  Index rows_ = 0, width_ = 0;
  bool rounds_sum_ = false, sum_is_declared_ = false;
  std::vector<double> sum_;  // x + residual
};

/// The contract keys that NormCase reads, for an op's record.
std::vector<SpecKey> norm_contract_keys(bool is_centred);

/// The spec keys of both norms; eps: what it is added to.
std::vector<SpecKey> norm_spec_keys(std::string_view eps);
SpecKey variance_contract_key();

/// Throws InvalidCase if the case's tensor `name` of the inputs holds NaN, an infinity, or a number whose
/// square overflows double.
void require_finite(const Case& c, const std::string& name);

/// Throws InvalidCase unless `compute` holds every value of the inputs' element types.
void require_wide_enough(const Case& c, const std::string& key, DType compute);

/// float64 if an input is of that type, else float32.
DType natural_compute_dtype(const Case& c);

}  // namespace attest
