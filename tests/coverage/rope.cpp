// The oracle's answers to cases of rope.
#include "tests/oracle/rope.hpp"

#include <cmath>
#include <complex>
#include <stdexcept>

#include "tests/coverage/feature.hpp"
#include "tests/coverage/rope_features.hpp"
#include "tests/coverage/tensors.hpp"

namespace attest::coverage {
namespace {

using oracle::Real;

constexpr Real unit = oracle_unit;

/// A tensor of the case as [B, H, S, D].
struct Sizes {
  std::string layout;
  Index b = 1, h = 1, s = 1, d = 1;

  explicit Sizes(const Case& c) : layout(text_of(c, "layout", "bhsd")) {
    const Shape& shape = c.in.at(c.in.contains("x") ? "x" : "dy").shape;
    const bool merges = layout.back() == 'm';
    for (std::size_t axis = 0; axis < (merges ? 2 : shape.size() - 1); ++axis) {
      const char letter = layout == "thd" ? "sh"[axis] : layout[axis];
      (letter == 'b' ? b : letter == 'h' ? h : s) = shape[axis];
    }
    if (merges) h = static_cast<Index>(number_of(c, "heads", 0));
    d = merges ? shape.back() / h : shape.back();
  }
  Place place() const { return {layout, b, h, s, d}; }
};

/// Of row s of batch entry b, if the case gives positions.
Real position(const Case& c, const Sizes& n, Index b, Index s) {
  if (const Tensor* given = c.input("positions"))
    return given->values[given->shape.size() == 2 ? b * n.s + s : s];
  Real first = 0;  // of the sequence that the row is in
  if (const Tensor* starts = c.input("cu_seqlens")) {
    for (const double start : starts->values) first = start <= static_cast<double>(s) ? start : first;
  }
  return number_of(c, "position_start", 0) + static_cast<Real>(s) - first;
}

RopeFrequencies frequencies_of(const Case& c) {
  RopeFrequencies f{number_of(c, "theta", 0)};
  const std::string scaling = text_of(c, "scaling", "none");
  f.scaling = scaling == "linear"        ? RopeScaling::linear
              : scaling == "ntk"         ? RopeScaling::ntk
              : scaling == "dynamic_ntk" ? RopeScaling::dynamic_ntk
              : scaling == "yarn"        ? RopeScaling::yarn
              : scaling == "llama3"      ? RopeScaling::llama3
                                         : RopeScaling::none;
  f.factor = number_of(c, "factor", 1);
  f.original_max_position_embeddings = number_of(c, "original_max_position_embeddings", 0);
  f.sequence_length = number_of(c, "sequence_length", 0);
  f.beta_fast = number_of(c, "beta_fast", 32);
  f.beta_slow = number_of(c, "beta_slow", 1);
  f.low_freq_factor = number_of(c, "low_freq_factor", 0);
  f.high_freq_factor = number_of(c, "high_freq_factor", 0);
  return f;
}

Real in_float32(Real x) {
  return round_to(static_cast<double>(x), DType::float32);
}

/// Inverse frequencies, and their relative error.
struct Frequencies {
  std::vector<Real> f;
  Real error = 0;

  Frequencies(const Case& c, Index rotary_dim, bool in_float32_steps) {
    if (const Tensor* given = c.input("inv_freq")) {
      f.assign(given->values.begin(), given->values.end());
    } else {
      const RopeFrequencies formula = frequencies_of(c);
      f = oracle::rope_inverse_frequencies(formula, rotary_dim);
      // Powers by way of logarithms below 2^5. ntk scalings define theta as a double, the oracle's is exact.
      const bool changes_theta =
          formula.scaling == RopeScaling::ntk || formula.scaling == RopeScaling::dynamic_ntk;
      error = changes_theta ? 0x1p-50L : 64 * unit;
      if (in_float32_steps) round_exponents(formula, rotary_dim);
    }
    for (Real& x : f) x = in_float32_steps ? in_float32(x) : x;
  }

 private:
  /// theta^-e with e rounded to float32.
  void round_exponents(const RopeFrequencies& formula, Index rotary_dim) {
    for (std::size_t k = 0; k < f.size(); ++k) {
      const Real e = 2 * static_cast<Real>(k) / static_cast<Real>(rotary_dim), shift = e - in_float32(e);
      if (shift != 0 && formula.scaling != RopeScaling::none && formula.scaling != RopeScaling::linear)
        throw std::logic_error("the oracle has this scaling with exact exponents only");
      f[k] *= std::exp(shift * std::log(Real{formula.theta}));
    }
  }
};

/// cos and sin of one row, R values each, one a column; error: of each of them.
struct Angles {
  std::vector<Real> cos, sin;
  Real error = 0;
};

Angles angles_of(const Case& c, const Sizes& n, const RopeSpec& spec, Index b, Index s) {
  const Tensor* table = c.input("cos");
  Angles a;
  const Index r = spec.rotary_dim;
  const auto pair_of = [&](Index d) { return spec.style == RopeStyle::half ? d % (r / 2) : d / 2; };
  if (table) {
    const bool is_cache =
        c.in.contains("positions") || c.in.contains("cu_seqlens") || c.spec.contains("position_start");
    const Index width = table->shape.back();
    const Index row = is_cache                   ? static_cast<Index>(position(c, n, b, s))
                      : table->shape.size() == 3 ? b * n.s + s
                                                 : s;
    for (Index d = 0; d < r; ++d) {
      const Index at = row * width + (width == r ? d : pair_of(d));
      a.cos.push_back(table->values[at]);
      a.sin.push_back(c.in.at("sin").values[at]);
    }
    return a;
  }
  const bool is_float32 =
      text_of(c, "angle_dtype", "float32") == "float32" && !c.contract.contains("angle_error");
  const Frequencies frequencies(c, r, is_float32);
  const bool is_yarn = text_of(c, "scaling", "none") == "yarn";
  const Real factor = c.spec.contains("attention_factor") ? Real{number_of(c, "attention_factor", 1)}
                      : is_yarn                           ? std::log(Real{number_of(c, "factor", 1)}) / 10 + 1
                                                          : 1;
  const Real p = position(c, n, b, s);
  std::vector<std::complex<Real>> turns;
  for (const Real f : frequencies.f) {
    // One rounded angle, or p equal turns, each as far off as the frequency.
    turns.push_back(factor * (is_float32 ? oracle::rope_turn(in_float32(in_float32(p) * f), 1)
                                         : oracle::rope_turn(f, static_cast<long long>(p))));
    const Real own = is_float32 ? 0 : std::abs(p) * (f * frequencies.error + 2 * unit);
    a.error = std::max(a.error, factor * (own + 4 * unit) + (is_yarn ? 0x1p-52L : 0));  // yarn's is a double
  }
  for (Index d = 0; d < r; ++d) {
    a.cos.push_back(turns[pair_of(d)].real());
    a.sin.push_back(turns[pair_of(d)].imag());
  }
  return a;
}

Answers answers(const Case& c) {
  const Sizes n(c);
  const Place place = n.place();
  const RopeSpec spec{text_of(c, "style", "") == "half" ? RopeStyle::half : RopeStyle::interleaved,
                      static_cast<Index>(number_of(c, "rotary_dim", static_cast<double>(n.d)))};
  Answers all;
  for (const auto& [name, tensor] : c.out) {
    Answer& answer = all.emplace(name, Answer(tensor)).first->second;
    const std::vector<double>& from = c.in.at(name == "y" ? "x" : "dy").values;
    for (Index b = 0; b < n.b; ++b) {
      for (Index s = 0; s < n.s; ++s) {
        const Angles a = angles_of(c, n, spec, b, s);
        const Array<Real, 2> matrix = oracle::rope_matrix(spec, n.d, a.cos, a.sin);
        for (Index h = 0; h < n.h; ++h) {
          std::vector<Real> row;
          for (Index d = 0; d < n.d; ++d) row.push_back(from[place(b, h, s, d)]);
          const std::vector<Real> turned = oracle::rope_times(matrix, row, name == "dx");
          for (Index d = 0; d < n.d; ++d) {
            Real error = 0;  // two products and a sum; columns that are copied have no error
            for (Index e = 0; e < spec.rotary_dim && d < spec.rotary_dim; ++e) {
              const Real m = std::abs(name == "dx" ? matrix(e, d) : matrix(d, e));
              if (m > 0) error += std::abs(row[e]) * (a.error + 4 * unit * m);
            }
            answer.value[place(b, h, s, d)] = turned[d];
            answer.error[place(b, h, s, d)] = error;
          }
        }
      }
    }
  }
  return all;
}

}  // namespace

const Suite rope_suite = {"rope", "tests/oracle/rope.cpp", rope_features, answers};

}  // namespace attest::coverage
