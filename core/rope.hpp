// What one rotary position embedding is: which columns turn together, and by which angle.
#pragma once

#include "core/view.hpp"

namespace attest {

/// half: column k turns with column k + R/2 (GPT-NeoX, Llama); interleaved: column 2k with 2k + 1 (GPT-J).
enum class RopeStyle { half, interleaved };

/// Rows have D columns, of which the first R = rotary_dim turn; the rest is copied. R is even.
struct RopeSpec {
  RopeStyle style;
  Index rotary_dim;

  Index pairs() const { return rotary_dim / 2; }
  Index first(Index k) const { return style == RopeStyle::half ? k : 2 * k; }
  Index second(Index k) const { return style == RopeStyle::half ? k + pairs() : 2 * k + 1; }
};

/// How a model that was trained on M = original_max_position_embeddings positions is stretched to more. With
/// f_k = theta^(-2k/R), the inverse frequency of pair k becomes
///   none         f_k
///   linear       f_k / factor
///   ntk          theta := theta factor^(R/(R-2))
///   dynamic_ntk  theta := theta (factor L/M - (factor - 1))^(R/(R-2)), L = max(sequence_length, M)
///   yarn         f_k (e + (1 - e) / factor), e = 1 - clamp((k - low) / (high - low), 0, 1), where pair `low`
///                makes beta_fast and pair `high` beta_slow full turns in M positions (rounded outwards to
///                whole pairs, and kept within 0 and R - 1)
///   llama3       f_k (s + (1 - s) / factor), s = clamp((M / wavelength - low_freq_factor) /
///                (high_freq_factor - low_freq_factor), 0, 1), wavelength = 2 pi / f_k
enum class RopeScaling { none, linear, ntk, dynamic_ntk, yarn, llama3 };

/// Where inverse frequencies come from. Members that the scaling does not name are not read.
struct RopeFrequencies {
  double theta;
  RopeScaling scaling = RopeScaling::none;
  double factor = 1;
  double original_max_position_embeddings = 0;
  double sequence_length = 0;
  double beta_fast = 0, beta_slow = 0;
  double low_freq_factor = 0, high_freq_factor = 0;
};

/// The arithmetic that the angle position * inverse frequency is defined by.
///   exact    none: real numbers
///   float32  position, inverse frequency and their product are each rounded to float32, as in
///            torch.outer(positions.float(), inv_freq); the exponent 2k/R was rounded to float32, too
enum class AngleRule { exact, float32 };

}  // namespace attest
