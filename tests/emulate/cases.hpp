// Cases in memory: inputs of many kinds, and what an emulated kernel makes of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/emulate/attention.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

enum class Distribution {
  normal,         // mean 0, deviation 1
  uniform,        // q, k in [-1.7, 1.7), v in [0, 1)
  large,          // scores in the hundreds
  outlier,        // few columns much larger than the rest
  spiky,          // every query resembles one key
  near_uniform,   // all weights nearly equal, v near 1
  repeated_keys,  // four different keys
  constant_v,
  cancelling,  // large terms of alternating sign in q.k and in p v
  unit         // everything in [0, 1)
};
inline constexpr Distribution all_distributions[] = {
    Distribution::normal,        Distribution::uniform,    Distribution::large,
    Distribution::outlier,       Distribution::spiky,      Distribution::near_uniform,
    Distribution::repeated_keys, Distribution::constant_v, Distribution::cancelling};

std::string_view name_of(Distribution distribution);

/// One sequence in layout bhsd.
struct Setup {
  DType element = DType::float16;
  Index q_heads = 2, kv_heads = 2, queries = 70, keys = 70, width = 32, v_width = 32;
  AttentionSpec spec{Causal::none, 0.125, -1, -1, 0, EmptyRow::zero};
  Distribution distribution = Distribution::normal;
  bool has_mask = false, has_alibi = false, has_sink = false;
  std::vector<Index> bias_shape;  // empty: no bias
  std::uint64_t seed = 1;

  std::string text() const;
};

/// Its inputs, without outputs. The contract group names p_dtype where it is not the element type.
Case inputs_of(const Setup& setup, DType p_dtype);

/// What a kernel reads of such a case; the case must live on.
AttentionInputs views_of(const Case& c);

/// Replaces the outputs by those of `outputs` that there are results for.
void store(Case& c, const Results& results, const std::vector<std::string>& outputs, DType element,
           DType p_dtype);

inline const std::vector<std::string> all_outputs = {"o",  "lse", "m",  "l",     "s",    "p",
                                                     "dq", "dk",  "dv", "dbias", "dsink"};

/// The dump of a kernel on these inputs. With_gradients: the backward pass ran, too.
Case dump_of(const Setup& setup, const Kernel& kernel, bool with_gradients,
             const std::vector<std::string>& outputs = all_outputs);

}  // namespace attest::emulate
