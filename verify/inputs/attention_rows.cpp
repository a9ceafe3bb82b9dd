// The recipes for attention: what rows of q, k and v hold.
#include "verify/inputs/attention_rows.hpp"

#include <algorithm>
#include <cmath>

#include "core/invalid_case.hpp"

namespace attest {
namespace {

void normal_q(const AttentionRows& in, const RowPlace& at, std::span<double> row) {
  in.q.normals(in.q_index(at.b, at.head, at.row) * in.n.width, row);
}
void normal_k(const AttentionRows& in, const RowPlace& at, std::span<double> row) {
  in.k.normals(in.k_index(at.b, at.head, at.row) * in.n.width, row);
}
void normal_v(const AttentionRows& in, const RowPlace& at, std::span<double> row) {
  in.v.normals(in.k_index(at.b, at.head, at.row) * in.n.v_width, row);
}

/// `of` times a factor, plus a mean.
template <RowMaker of>
void affine(const AttentionRows& in, const RowPlace& at, std::span<double> row, double factor,
            double mean = 0) {
  of(in, at, row);
  for (double& x : row) x = mean + factor * x;
}

/// Three columns over the width, far from each other.
void enlarge_channels(std::span<double> row, double factor) {
  const Index last = std::ssize(row) - 1;
  row[0] *= factor;
  if (last > 1) row[last / 2] *= factor;
  if (last > 0) row[last] *= factor;
}

double alternating(Index n) {
  return n % 2 == 0 ? 1 : -1;
}

// The scores of a row are `gap` times the number of digits that the key shares with the row's own. e^-gap
// leaves the other keys less than 2^-24 of the output, which therefore rounds to the row of v, and scores are
// small enough that a kernel's errors of them do not matter either.
constexpr double gap = 24;

/// |q| and |k| with q k |scale| >= gap, q and k of like size and with few bits.
std::pair<double, double> code_sizes(const AttentionRows& in) {
  const double product = gap / std::abs(in.spec.scale);
  const double k = std::ldexp(1.0, std::ilogb(product) / 2);
  double q = round_to(product / k, in.dtype);
  if (q * k < product) q += ulp(q, in.dtype);
  return {std::copysign(q, in.spec.scale), k};
}

/// Integers of either sign that need every bit of the element type's significand, up to 11 of them. They are
/// in the lower half of a binade, where a unit in the last place is larger beside the value.
void integers(const RandomStream& stream, Index first, DType dtype, std::span<double> row) {
  const Index smallest = Index{1} << (std::min(format_of(dtype).precision, 11) - 1);
  for (Index e = 0; e < std::ssize(row); ++e) {
    const Index x = stream.below(first + e, smallest), size = smallest + x / 2;
    row[e] = static_cast<double>(x % 2 == 0 ? size : -size);
  }
}

constexpr AttentionRecipe recipes[] = {
    {{"normal",
      "mean 0, deviation 1, as after a norm: the baseline; most faults of masks, indices and scale"},
     normal_q,
     normal_k,
     normal_v},
    {{"uniform", "q and k in [-1.7, 1.7), v in [0, 1): a mean in v shows a wrong row sum"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       in.q.uniforms(in.q_index(at.b, at.head, at.row) * in.n.width, row);
       for (double& x : row) x = 3.4 * x - 1.7;
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       in.k.uniforms(in.k_index(at.b, at.head, at.row) * in.n.width, row);
       for (double& x : row) x = 3.4 * x - 1.7;
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       in.v.uniforms(in.k_index(at.b, at.head, at.row) * in.n.v_width, row);
     }},
    {{"large", "scores in the hundreds: a softmax without its maximum, scores kept in few bits"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_q>(in, at, row, 6);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_k>(in, at, row, 6);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_v>(in, at, row, 30);
     }},
    {{"outliers", "three channels of q, k and v are far larger, as in trained models: narrow sums, fp8"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_q(in, at, row);
       enlarge_channels(row, 20);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_k(in, at, row);
       enlarge_channels(row, 4);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_v(in, at, row);
       enlarge_channels(row, 60);
     }},
    {{"spiky", "every query resembles one key: lost or repeated keys, late maxima, rescaling"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       std::vector<double> key(row.size());
       const Index j = in.visible_key(at.b, at.head, at.row);
       normal_k(in, {at.b, at.head * in.n.kv_heads / in.n.q_heads, std::max(j, Index{0})}, key);
       normal_q(in, at, row);
       for (std::size_t d = 0; d < row.size(); ++d) row[d] = 1.2 * key[d] + 0.3 * row[d];
     },
     normal_k,
     normal_v},
    {{"near_uniform", "all weights nearly equal, v near 1: a wrong number of keys, narrow row sums and P.V"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_q>(in, at, row, 0.3);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_k>(in, at, row, 0.3);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_v>(in, at, row, 0.1, 1);
     }},
    {{"ties", "four different keys, repeated: the row maximum occurs many times"},
     normal_q,
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_k(in, {at.b, at.head, in.target.below(at.row, 4) % in.n.keys}, row);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_v>(in, at, row, 0.2, 1);
     }},
    {{"exact", "integers; each query matches one key, whose row of v is the output: bit for bit in 16 bits"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       const Index j = in.visible_key(at.b, at.head, at.row);
       KeyCode(in.n.keys, in.n.width).write(std::max(j, Index{0}), code_sizes(in).first, row);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       KeyCode(in.n.keys, in.n.width).write(at.row, code_sizes(in).second, row);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       integers(in.v, in.k_index(at.b, at.head, at.row) * in.n.v_width, in.dtype, row);
     }},
    {{"cancellation", "large terms of both signs in q.k and in P.V: sums in too few bits, lost terms"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_q>(in, at, row, 0.1, 20);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_k(in, at, row);
       for (Index d = 0; d < std::ssize(row); ++d) row[d] = 20 * alternating(d) + 0.1 * row[d];
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_v>(in, at, row, 0.01, 100 * alternating(at.row));
     }},
    {{"constant_v", "all keys of a head have the same value, which o must equal: normalisation, rows of v"},
     normal_q,
     normal_k,
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_v(in, {at.b, at.head, 0}, row);
     }},
    {{"subnormals", "q and every other column of v subnormal: inputs or results flushed to zero"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_q>(in, at, row, std::ldexp(1.0, format_of(in.dtype).emin - 2));
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_k>(in, at, row, std::ldexp(1.0, -format_of(in.dtype).emin - 1));
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_v(in, at, row);
       for (Index e = 0; e < std::ssize(row); e += 2) row[e] *= std::ldexp(1.0, format_of(in.dtype).emin - 2);
     }},
    {{"padding", "normal, keys of several lengths with NaN behind them: absent keys that are read"},
     normal_q,
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_k(in, at, row);
       if (at.row >= in.sequences[at.b].keys) std::ranges::fill(row, std::nan(""));
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       normal_v(in, at, row);
       if (at.row >= in.sequences[at.b].keys) std::ranges::fill(row, std::nan(""));
     }},
    {{"overflow", "q.k beyond the largest float16: scores kept in float16, a scale that comes too late"},
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_q>(in, at, row, 110);
     },
     [](const AttentionRows& in, const RowPlace& at, std::span<double> row) {
       affine<normal_k>(in, at, row, 110);
     },
     normal_v},
    {{"long", "normal, rows of thousands of keys: sums that stagnate, indices that wrap"},
     normal_q,
     normal_k,
     normal_v},
};

}  // namespace

const SequenceRange& AttentionRows::sequence(Index b, Index i) const {
  if (!is_packed) return sequences[b];
  return *std::find_if(sequences.begin(), sequences.end(),
                       [&](const SequenceRange& s) { return i < s.first_query + s.queries; });
}

Index AttentionRows::visible_key(Index b, Index h, Index i) const {
  const SequenceRange& s = sequence(b, i);
  const Index on_diagonal =
      i - s.first_query + (spec.causal == Causal::top_left ? n.past : s.keys - s.queries);
  Index first = 0, last = s.keys - 1;
  if (spec.causal != Causal::none) last = std::min(last, on_diagonal);
  if (spec.window_left >= 0) first = std::max(first, on_diagonal - spec.window_left);
  if (spec.window_right >= 0) last = std::min(last, on_diagonal + spec.window_right);
  if (first > last) return -1;
  return s.first_key + first + target.below(q_index(b, h, i), last - first + 1);
}

std::span<const AttentionRecipe> attention_recipes() {
  return recipes;
}

KeyCode::KeyCode(Index keys, Index width) {
  for (digits = 1; digits <= width; ++digits) {
    base = 2 * (width / digits);
    Index codes = 1;
    for (Index n = 0; n < digits && codes < keys; ++n) codes *= base;
    if (codes >= keys) return;
  }
  throw InvalidCase("recipe exact tells " + std::to_string(keys) +
                    " keys apart by the columns of k; D = " + std::to_string(width) + " are too few");
}

void KeyCode::write(Index number, double value, std::span<double> row) const {
  std::ranges::fill(row, 0.0);
  for (Index n = 0; n < digits; ++n, number /= base)
    row[(n * base + number % base) / 2] = number % 2 == 0 ? value : -value;
}

}  // namespace attest
