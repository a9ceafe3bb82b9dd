// The oracle's answers to cases of attention.
#include "tests/oracle/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "tests/coverage/attention_features.hpp"
#include "tests/coverage/attention_sequences.hpp"
#include "tests/coverage/feature.hpp"
#include "tests/coverage/tensors.hpp"

namespace attest::coverage {
namespace {

using oracle::Real;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Real unit = oracle_unit;

AttentionSpec spec_of(const Case& c) {
  const std::string causal = text_of(c, "causal", ""), empty = text_of(c, "empty_row", "zero");
  const auto integer = [&](const char* key) { return static_cast<Index>(number_of(c, key, -1)); };
  return {causal == "none"       ? Causal::none
          : causal == "top_left" ? Causal::top_left
                                 : Causal::bottom_right,
          number_of(c, "scale", 0),
          integer("window_left"),
          integer("window_right"),
          number_of(c, "softcap", 0),
          empty == "zero"  ? EmptyRow::zero
          : empty == "nan" ? EmptyRow::nan
                           : EmptyRow::mean_v,
          text_of(c, "alibi", "distance") == "position" ? Alibi::position : Alibi::distance};
}

template <int Rank>
Real largest(const Array<double, Rank>& x) {
  Real most = 0;
  for (Index n = 0; n < x.size(); ++n) {
    if (std::isfinite(x.data()[n])) most = std::max<Real>(most, std::abs(x.data()[n]));
  }
  return most;
}

/// The largest sum of magnitudes in a product of rows of a[Hq, Sq, D] and b[Hkv, Sk, D].
Real largest_product(const Array<double, 3>& a, const Array<double, 3>& b) {
  Real most = 0;
  for (Index h = 0; h < a.extent(0); ++h) {
    for (Index i = 0; i < a.extent(1); ++i) {
      for (Index j = 0; j < b.extent(1); ++j) {
        Real sum = 0;
        for (Index d = 0; d < a.extent(2); ++d)
          sum += std::abs(a(h, i, d) * b(h * b.extent(0) / a.extent(0), j, d));
        most = std::max(most, sum);
      }
    }
  }
  return most;
}

/// How far the oracle may be off in one sequence, to first order and twice.
struct Errors {
  Real score;     // of a score and of the maximum
  Real weight;    // relative, of a weight and of a row sum
  Real gradient;  // of a score's gradient, per unit of its weight
  Real q, k, v, d_o, scale;

  Errors(const AttentionSpec& spec, const AttentionSequence& s)
      : q(largest(s.q)), k(largest(s.k)), v(largest(s.v)), d_o(largest(s.d_o)), scale(std::abs(spec.scale)) {
    const Real keys = static_cast<Real>(s.keys), rows = static_cast<Real>(s.queries),
               width = static_cast<Real>(s.q.extent(2)), v_width = static_cast<Real>(s.v.extent(2));
    // What scores and row sums are made of; the logarithm of a row sum is less than its keys + 1.
    const Real product = scale * largest_product(s.q, s.k);
    const Real others = largest(s.bias) + largest(s.sink) + largest(s.slopes) * (keys + rows) + keys + 1;
    score = 2 * unit * ((width + 8) * product + 8 * others);
    weight = 2 * (2 * score + (keys + 8) * unit);
    // dS = P (dP - sum P dP)
    gradient = 2 * largest_product(s.d_o, s.v) * (2 * weight + (v_width + keys + 8) * unit);
  }
};

/// What one sequence contributes to every output.
class Writer {
 public:
  Writer(const Case& c, const AttentionSizes& n, const Errors& errors, const AttentionSequence& s,
         const oracle::Attention& x, Answers& all)
      : case_(c), n_(n), errors_(errors), s_(s), x_(x), all_(all) {}

  void forward() {
    rows("o", x_.o, n_.queries, s_.first_q, 0, [&](Index, Index) { return errors_.weight * errors_.v; });
    scores("s", x_.s, [&](Real) { return errors_.score; });
    scores("p", x_.p, [&](Real p) { return errors_.weight * p; });
    const bool is_base_2 = text_of(case_, "lse_base", "e") == "2";
    const double empty = text_of(case_, "lse_empty", "-inf") == "+inf" ? infinity : -infinity;
    const Real base = is_base_2 ? std::numbers::log2e_v<Real> : 1;
    statistics("lse", [&](Index h, Index i) {
      const Real lse = x_.lse(h, i);
      return Entry{lse == -infinity ? empty : lse * base, 2 * errors_.weight};
    });
    statistics("m", [&](Index h, Index i) { return Entry{x_.m(h, i), errors_.score}; });
    statistics("l", [&](Index h, Index i) { return Entry{x_.l(h, i), 2 * errors_.weight * x_.l(h, i)}; });
  }

  void backward(const oracle::AttentionGradients& g) {
    // The weights that a key has in all rows of the heads that share it.
    const auto weight_of = [&](Index g_head, Index j) {
      const Index group = n_.q_heads / n_.kv_heads;
      Real sum = 0;
      for (Index h = g_head * group; h < (g_head + 1) * group; ++h) {
        for (Index i = 0; i < s_.queries; ++i) sum += x_.p(h, i, j);
      }
      return sum;
    };
    rows("dq", g.dq, n_.queries, s_.first_q, 0,
         [&](Index, Index) { return errors_.scale * errors_.k * errors_.gradient; });
    rows("dk", g.dk, n_.keys, s_.first_k, s_.in.past,
         [&](Index h, Index j) { return errors_.scale * errors_.q * errors_.gradient * weight_of(h, j); });
    rows("dv", g.dv, n_.keys, s_.first_k, s_.in.past,
         [&](Index h, Index j) { return 2 * errors_.weight * errors_.d_o * weight_of(h, j); });
    Answer *dsink = answer("dsink"), *dbias = answer("dbias");
    for (Index h = 0; h < n_.q_heads; ++h) {
      if (dsink) dsink->value[h] += g.dsink(h);
      for (Index i = 0; i < s_.queries; ++i) {
        if (dsink) dsink->error[h] += errors_.gradient * std::exp(s_.in.sink(h) - x_.lse(h, i));
        for (Index j = 0; dbias && j < s_.keys; ++j) {
          const Index at = Broadcast(case_.out.at("dbias").shape)(s_.b, h, i, j);
          dbias->value[at] += g.ds(h, i, j);
          dbias->error[at] += errors_.gradient * x_.p(h, i, j);
        }
      }
    }
  }

 private:
  struct Entry {
    Real value, error;
  };

  Answer* answer(const std::string& name) {
    const auto it = all_.find(name);
    return it == all_.end() ? nullptr : &it->second;
  }

  /// Rows from `skipped` on of x[H, S, D], to rows from `first` on of a tensor with `length` of them.
  template <class Error>
  void rows(const std::string& name, const Array<Real, 3>& x, Index length, Index first, Index skipped,
            Error error) {
    Answer* to = answer(name);
    if (!to) return;
    const Place place = n_.place(x.extent(0), length, x.extent(2));
    for (Index h = 0; h < x.extent(0); ++h) {
      for (Index i = skipped; i < x.extent(1); ++i) {
        for (Index d = 0; d < x.extent(2); ++d) {
          const Index at = place(s_.b, h, first + i - skipped, d);
          to->value[at] = x(h, i, d);
          to->error[at] = error(h, i);
        }
      }
    }
  }

  /// Keys that are absent have no weight.
  template <class Error>
  void scores(const std::string& name, const Array<Real, 3>& x, Error error) {
    Answer* to = answer(name);
    if (!to) return;
    const Broadcast place(case_.out.at(name).shape);
    for (Index h = 0; h < n_.q_heads; ++h) {
      for (Index i = 0; i < n_.queries; ++i) {
        for (Index j = 0; j < n_.past + n_.keys; ++j) {
          const Index at = place(s_.b, h, i, j);
          to->value[at] = j < s_.keys ? x(h, i, j) : name == "s" ? -infinity : 0;
          to->error[at] = j < s_.keys ? error(x(h, i, j)) : 0;
        }
      }
    }
  }

  /// One value a row, or equal copies: [B, H, S] in this order or in that of the layout.
  template <class Value>
  void statistics(const std::string& name, Value value) {
    Answer* to = answer(name);
    if (!to) return;
    const bool is_packed = n_.layout == "thd";
    const Shape plain = is_packed ? Shape{n_.q_heads, n_.queries} : Shape{n_.batch, n_.q_heads, n_.queries};
    const Shape& shape = case_.out.at(name).shape;
    const Index copies = shape.size() > plain.size() ? shape.back() : 1;
    const bool is_plain = std::equal(plain.begin(), plain.end(), shape.begin());
    const std::string order = is_plain ? "bhsd" : is_packed ? "thd" : n_.layout[0] == 's' ? "sbhd" : "bshd";
    const Place place(order, n_.batch, n_.q_heads, n_.queries, copies);
    for (Index h = 0; h < n_.q_heads; ++h) {
      for (Index i = 0; i < s_.queries; ++i) {
        const Entry entry = value(h, i);
        for (Index r = 0; r < copies; ++r) {
          const Index at = place(s_.b, h, s_.first_q + i, r);
          to->value[at] = entry.value;
          to->error[at] = entry.error;
        }
      }
    }
  }

  const Case& case_;
  const AttentionSizes& n_;
  const Errors& errors_;
  const AttentionSequence& s_;
  const oracle::Attention& x_;
  Answers& all_;
};

Answers answers(const Case& c) {
  const AttentionSizes n(c);
  const AttentionSpec spec = spec_of(c);
  Answers all;
  for (const auto& [name, tensor] : c.out) all.emplace(name, Answer(tensor));
  for (AttentionSequence& s : sequences_of(c, n)) {
    s.read(c, n);
    const Errors errors(spec, s);
    const oracle::Attention x = oracle::attention(spec, s.in);
    Writer writer(c, n, errors, s, x, all);
    writer.forward();
    if (c.in.contains("do"))
      writer.backward(oracle::attention_gradients(spec, s.in, std::as_const(s.d_o).view()));
  }
  return all;
}

}  // namespace

const Suite attention_suite = {"attention", "tests/oracle/attention.cpp", attention_features, answers};

}  // namespace attest::coverage
