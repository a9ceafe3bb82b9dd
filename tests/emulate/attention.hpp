// An emulated attention kernel: it rounds where a contract says that a device rounds, and errs where a broken
// kernel errs. Shares no code with the reference or the bounds.
#pragma once

#include <vector>

#include "core/attention.hpp"
#include "core/dtype.hpp"
#include "tests/emulate/mistakes.hpp"
#include "tests/emulate/sums.hpp"

namespace attest::emulate {

enum class Algorithm {
  flash1,   // normalises after every tile
  flash2,   // normalises once, at the end
  standard  // whole rows; stores normalised weights
};

enum class DeltaOf {
  stored_o,
  computed_o,  // before it is rounded
  weights      // the sum of p (do . v), p as computed
};

struct Kernel {
  Algorithm algorithm = Algorithm::flash2;
  Index tile = 32;                 // keys, and query rows
  bool reversed = false;           // visits the last tile first
  double lazy_rescale = 0;         // maxima stay until they are exceeded by more (FlashAttention-4)
  Index splits = 1;                // keys shared by so many workers, whose results are merged
  DType p_dtype = DType::float16;  // of the stored weights and of dS
  Adder qk{}, pv{};
  DeltaOf delta_of = DeltaOf::stored_o;
  bool ds_from_stored_p = false;
  bool ds_is_scaled = false;               // dS is multiplied by the scale before it is stored
  bool stores_gradients_per_head = false;  // the shares of query heads in dk, dv and dbias are rounded first
  Mistakes mistakes{};
};

/// Row-major, as stored: o, dq, dk, dv, dbias in the element type, p in Kernel::p_dtype, the rest in float32,
/// or in float64 if that is the element type. dbias lies like the data of in.bias. Gradients are empty
/// without d_o; s and p are those of the standard algorithm.
struct Results {
  std::vector<double> o, lse, m, l, s, p, dq, dk, dv, dbias, dsink;
};

/// One sequence. Inputs are values of the element type; empty rows give 0.
Results run(const Kernel& kernel, const AttentionSpec& spec, const AttentionInputs& in,
            View<const double, 3> d_o, DType element);

}  // namespace attest::emulate
