// Random attention problems.
#include "tests/oracle/attention_problem.hpp"

#include <limits>
#include <sstream>

#include "tests/support/random.hpp"

namespace attest::test {

AttentionInputs AttentionProblem::inputs() const {
  return {q.view(), k.view(), v.view(), mask.view(), bias.view(), alibi_slopes.view(), sink.view(), past};
}

std::string AttentionProblem::name() const {
  static const char* const causal[] = {"none", "top_left", "bottom_right"};
  static const char* const empty_row[] = {"zero", "nan", "mean_v"};
  std::ostringstream out;
  out << "seed " << seed << ": Hq " << q.extent(0) << " Hkv " << k.extent(0) << " Sq " << q.extent(1)
      << " Sk " << k.extent(1) << " D " << q.extent(2) << " E " << v.extent(2) << ", causal "
      << causal[static_cast<int>(spec.causal)] << ", past " << past << ", scale " << spec.scale
      << ", windows " << spec.window_left << ' ' << spec.window_right << ", softcap " << spec.softcap
      << ", empty rows " << empty_row[static_cast<int>(spec.empty_row)]
      << (alibi_slopes.size() ? ", alibi" : "") << (bias.size() ? ", bias" : "")
      << (mask.size() ? ", mask" : "") << (sink.size() ? ", sink" : "");
  return out.str();
}

AttentionSpec plain_spec(Causal causal, double scale) {
  return {causal, scale, -1, -1, 0, EmptyRow::zero};
}

AttentionProblem random_problem(const AttentionShape& shape, const AttentionSpec& spec,
                                const AttentionExtras& extras, Index past, std::uint64_t seed) {
  const auto [hq, hkv, sq, sk, d, e] = shape;
  Random random(seed);
  const auto fill = [&random](auto& array, double magnitude) {
    for (Index n = 0; n < array.size(); ++n) array.data()[n] = magnitude * random.symmetric();
  };
  AttentionProblem x;
  x.spec = spec;
  x.past = past;
  x.seed = seed;
  x.q = Array<double, 3>({hq, sq, d});
  x.k = Array<double, 3>({hkv, sk, d});
  x.v = Array<double, 3>({hkv, sk, e});
  x.d_o = Array<double, 3>({hq, sq, e});
  fill(x.q, 2);
  fill(x.k, 2);
  fill(x.v, 1);
  fill(x.d_o, 1);
  if (extras.alibi) {
    x.alibi_slopes = Array<double, 1>({hq});
    for (Index h = 0; h < hq; ++h) x.alibi_slopes(h) = 0.5 + 0.375 * random.symmetric();
  }
  if (extras.bias) {
    x.bias = Array<double, 3>({hq, sq, sk});
    fill(x.bias, 1);
    for (Index n = 0; n < x.bias.size(); ++n) {
      const bool last_row = n >= x.bias.size() - sk;
      if (random.one_in(5) || last_row) x.bias.data()[n] = -std::numeric_limits<double>::infinity();
    }
  }
  if (extras.mask) {
    x.mask = Array<double, 3>({hq, sq, sk}, 1);
    for (Index n = 0; n < x.mask.size(); ++n) {
      if (random.one_in(4) || n < sk) x.mask.data()[n] = 0;
    }
  }
  if (extras.sink) {
    x.sink = Array<double, 1>({hq});
    fill(x.sink, 1);
  }
  return x;
}

}  // namespace attest::test
