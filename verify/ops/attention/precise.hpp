// Exact values of kernels that compute in float64: plain double is no better than they are.
#pragma once

#include <vector>

#include "core/contract.hpp"
#include "verify/expected.hpp"
#include "verify/ops/attention/problem.hpp"

namespace attest {

/// Whether the errors of values in plain double count beside the bounds of this contract. Not where some rows
/// or keys stand for the whole case: there plain double and its certified error have to do.
bool needs_precise_values(const AttentionCase& attention, const Contract& contract);

/// Replaces what `expected` holds of o, lse, m and l by double-double values, about 100 bits, rounded once,
/// and value_error by what is certified of these (docs/double_double.md). Values that double-double
/// arithmetic does not cover stay as they are: infinities, NaN, sums of terms below 2^-796. Throws
/// InternalError where the two differ by more than both can be off.
void sharpen_forward(const AttentionCase& attention, std::vector<Expected>& expected);

/// The same for dq, dk and dv as functions of the o and lse of `saved`, one for each sequence.
void sharpen_gradients(const AttentionCase& attention, const std::vector<SavedForBackward>& saved,
                       std::vector<Expected>& expected);

}  // namespace attest
