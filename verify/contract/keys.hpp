// Contracts as dumps declare them, or as element types imply them.
#pragma once

#include <string>
#include <vector>

#include "core/contract.hpp"
#include "verify/case.hpp"
#include "verify/contract/reader.hpp"
#include "verify/op.hpp"

namespace attest {

/// An element type by name. Throws InvalidCase with the accepted ones.
DType read_dtype(KeyReader& keys, const std::string& key, DType fallback);

/// What sums and functions are computed in unless a contract says otherwise: float32, or float64 for float64.
DType wide_type(DType operands);

/// Matrix units of NVIDIA devices. docs/bounds.md, "Tensor cores". ampere, hopper: operands in float32 as
/// three products of tf32; tf32: as ampere, and these are converted.
enum class MatrixUnit { volta, ampere, hopper, none, tf32 };

/// Sums in that format of products of such operands: on a tensor core, if there is one and the sum is
/// float32.
Accumulator accumulator(DType sum, DType operands, MatrixUnit unit = MatrixUnit::ampere);

/// The contract of a case: keys p_dtype, softmax_dtype, qk_accumulate and pv_accumulate (element type
/// names), each derived from the element type of the operands where it is absent; matrix_unit; row_sum.
/// Throws InvalidCase on unknown keys and names.
Contract read_contract(ContractReader& keys, DType operands);
/// The keys that it reads, for an op's record.
std::vector<SpecKey> attention_contract_keys();

/// One line for reports.
std::string contract_text(const Contract& contract, const ContractReader& keys);

/// Attention between linear projections.
struct MultiheadContract {
  DType intermediate;                         // of q, k, v and the output of the heads as they are stored
  Accumulator in_projection, out_projection;  // x.w
  Contract attention;                         // its operands are of the intermediate type
};

/// Keys intermediate_dtype, that of x if absent, accumulate for the projections, and those of read_contract.
MultiheadContract read_multihead_contract(ContractReader& keys, DType x, DType in_weight, DType out_weight);
std::vector<SpecKey> multihead_contract_keys();
std::string contract_text(const MultiheadContract& contract, const ContractReader& keys);

/// Ops without matrix products: key compute_dtype (or `accumulate`), float32 if absent, float64 for float64
/// operands.
DType read_compute_dtype(const Case& c, ContractReader& keys, DType operands);
/// The same in the middle of other keys: finish() is up to the caller.
DType read_compute_dtype_among(const Case& c, ContractReader& keys, DType fallback);
std::vector<SpecKey> compute_contract_keys();
std::string compute_dtype_text(DType dtype, const ContractReader& keys);

}  // namespace attest
