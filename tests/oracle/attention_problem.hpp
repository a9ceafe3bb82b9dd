// Random attention problems that own their tensors.
#pragma once

#include <cstdint>
#include <string>

#include "core/array.hpp"
#include "core/attention.hpp"

namespace attest::test {

struct AttentionShape {
  Index hq, hkv, sq, sk, d, e;
};

/// Which optional tensors a problem has.
struct AttentionExtras {
  bool alibi = false, bias = false, mask = false, sink = false;
};

/// inputs() views the arrays: change them freely, but keep the problem alive. An array of size 0 is not
/// given.
struct AttentionProblem {
  AttentionSpec spec;
  Array<double, 3> q, k, v, mask, bias;
  Array<double, 1> alibi_slopes, sink;
  Array<double, 3> d_o;  // [Hq, Sq, E]: the gradient that the backward pass starts from
  Index past = 0;
  std::uint64_t seed = 0;

  AttentionInputs inputs() const;
  /// Everything that is needed to build it again, for messages.
  std::string name() const;
};

/// softcap off, windows open, empty rows 0.
AttentionSpec plain_spec(Causal causal, double scale);

/// Entries of q and k in [-2, 2), of v, d_o, sink and bias in [-1, 1). One bias in five is -inf, and so is
/// the whole last row of the last head; one mask entry in four is 0, and so is row 0 of head 0.
AttentionProblem random_problem(const AttentionShape& shape, const AttentionSpec& spec,
                                const AttentionExtras& extras, Index past, std::uint64_t seed);

}  // namespace attest::test
