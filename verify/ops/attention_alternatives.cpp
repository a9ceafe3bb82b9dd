// What attention kernels get wrong, as answers that a failed dump can be held against.
#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "verify/ops/attention_explanations.hpp"
#include "verify/ops/attention_misreadings.hpp"
#include "verify/ops/attention_overwritten_bias.hpp"
#include "verify/ops/attention_problem.hpp"
#include "verify/ops/attention_rearranged.hpp"

namespace attest {
namespace {

/// What a backward pass may read in place of what it should: made once for each misreading and array, and
/// kept.
class ReadByMistake {
 public:
  using Rows = View<const double, 2>;
  using Vectors = View<const double, 3>;

  Rows scaled(Rows lse, double factor) {
    return kept(rows_, "scaled", lse, [&](Index h, Index i) { return factor * lse(h, i); });
  }
  Rows of_row(Rows lse, Index shift) {
    return kept(rows_, shift > 0 ? "after" : "before", lse,
                [&](Index h, Index i) { return lse(h, shifted(i, shift, lse.extent(1))); });
  }
  Rows of_next_head(Rows lse) {
    return kept(rows_, "head", lse, [&](Index h, Index i) { return lse((h + 1) % lse.extent(0), i); });
  }
  Vectors row_before(Vectors from) {
    return kept(vectors_, "before", from,
                [&](Index h, Index i, Index e) { return from(h, shifted(i, -1, from.extent(1)), e); });
  }
  Vectors of_next_head(Vectors from) {
    return kept(vectors_, "head", from,
                [&](Index h, Index i, Index e) { return from((h + 1) % from.extent(0), i, e); });
  }

  /// An o whose products with do are these deltas, of which another row's or head's may be one.
  Vectors o_of_delta_of_row(const ref::AttentionSaved& x, Index shift) {
    return o_of_delta(shift > 0 ? "delta after" : "delta before", x, [&](Index h, Index i) {
      return product(x, h, shifted(i, shift, x.o.extent(1)), x.o.extent(2));
    });
  }
  Vectors o_of_delta_of_next_head(const ref::AttentionSaved& x) {
    return o_of_delta("delta of head", x, [&](Index h, Index i) {
      return product(x, (h + 1) % x.o.extent(0), i, x.o.extent(2));
    });
  }
  Vectors o_of_delta_of_half(const ref::AttentionSaved& x) {
    return o_of_delta("delta of half", x,
                      [&](Index h, Index i) { return product(x, h, i, x.o.extent(2) / 2); });
  }

 private:
  template <int Rank>
  using Kept = std::map<std::pair<std::string, const double*>, Array<double, Rank>>;

  static Index shifted(Index i, Index by, Index rows) { return std::clamp<Index>(i + by, 0, rows - 1); }
  static double product(const ref::AttentionSaved& x, Index h, Index i, Index columns) {
    double sum = 0;
    for (Index e = 0; e < columns; ++e) sum += x.d_o(h, i, e) * x.o(h, i, e);
    return sum;
  }

  template <class F>
  static Rows kept(Kept<2>& all, const std::string& misreading, Rows like, const F& f) {
    const auto [at, is_new] = all.try_emplace({misreading, like.data_handle()});
    if (is_new) at->second = Array<double, 2>({like.extent(0), like.extent(1)});
    for (Index h = 0; is_new && h < like.extent(0); ++h)
      for (Index i = 0; i < like.extent(1); ++i) at->second(h, i) = f(h, i);
    return at->second.view();
  }
  template <class F>
  static Vectors kept(Kept<3>& all, const std::string& misreading, Vectors like, const F& f) {
    const auto [at, is_new] = all.try_emplace({misreading, like.data_handle()});
    if (is_new) at->second = Array<double, 3>({like.extent(0), like.extent(1), like.extent(2)});
    for (Index h = 0; is_new && h < like.extent(0); ++h)
      for (Index i = 0; i < like.extent(1); ++i)
        for (Index e = 0; e < like.extent(2); ++e) at->second(h, i, e) = f(h, i, e);
    return at->second.view();
  }
  template <class F>
  Vectors o_of_delta(const std::string& misreading, const ref::AttentionSaved& x, const F& delta) {
    const Rows factors =
        kept(rows_, misreading, {x.o.data_handle(), {x.o.extent(0), x.o.extent(1)}}, [&](Index h, Index i) {
          double size = 0;
          for (Index e = 0; e < x.d_o.extent(2); ++e) size += x.d_o(h, i, e) * x.d_o(h, i, e);
          return size > 0 ? delta(h, i) / size : 0;
        });
    return kept(vectors_, misreading, x.o,
                [&](Index h, Index i, Index e) { return x.d_o(h, i, e) * factors(h, i); });
  }

  Kept<2> rows_;
  Kept<3> vectors_;
};

/// The first `keys` keys of [H, S, D].
View<const double, 3> first_keys(View<const double, 3> x, Index keys) {
  return {x.data_handle(), {x.extent(0), keys, x.extent(2)}, {x.stride(0), x.stride(1), x.stride(2)}};
}

/// The last query head of each group only.
template <class T, int Rank>
View<T, Rank> last_of_groups(View<T, Rank> x, Index group) {
  if (!x) return x;
  typename View<T, Rank>::Extents extents, strides;
  for (int axis = 0; axis < Rank; ++axis) {
    extents[axis] = x.extent(axis);
    strides[axis] = x.stride(axis);
  }
  T* const first = x.data_handle() + (group - 1) * strides[0];
  extents[0] /= group;
  strides[0] *= group;
  return {first, extents, strides};
}

}  // namespace

std::vector<Decoy> AttentionProblem::alternatives(std::span<const Expected> expected) const {
  std::vector<Decoy> all = rearranged_outputs(attention_, expected);
  const AttentionSpec& right = attention_.spec;
  const AttentionInputs& in = attention_.sequences.front().in;
  const auto take = [&](std::vector<Decoy> answers) {
    for (Decoy& answer : answers) all.push_back(std::move(answer));
  };
  const auto with_spec = [&](const std::string& name, auto change) {
    AttentionSpec wrong = right;
    change(wrong);
    take(sampled_answers(name, wrong));
  };
  const auto with_inputs = [&](const std::string& name, const Misreading& misread) {
    take(sampled_answers(name, right, misread));
  };
  // The diagonal of every mode is that of top_left with another past.
  const auto with_diagonal = [&](const std::string& name, AttentionSpec wrong, Index shift,
                                 const Misreading& misread) {
    const bool is_limited = right.causal != Causal::none;
    wrong.causal = Causal::top_left;
    if (!is_limited) wrong.causal = Causal::none;
    take(sampled_answers(name, wrong, [&, shift](AttentionInputs& x) {
      const Index offset = diagonal(right, x, 0) - (x.row ? x.row(0) : 0) + shift;
      misread(x);
      x.past = offset;
    }));
  };

  if (right.causal != Causal::none) {
    with_diagonal("a causal diagonal one key too far", right, 1, [](AttentionInputs&) {});
    with_diagonal("a causal diagonal one key short", right, -1, [](AttentionInputs&) {});
  }
  if (right.window_left >= 0) {
    with_spec("window_left one key too wide", [](AttentionSpec& s) { ++s.window_left; });
    if (right.window_left > 0)
      with_spec("window_left one key short", [](AttentionSpec& s) { --s.window_left; });
    with_spec("window_left ignored", [](AttentionSpec& s) { s.window_left = -1; });
  }
  if (right.window_right >= 0) {
    with_spec("window_right one key too wide", [](AttentionSpec& s) { ++s.window_right; });
    if (right.window_right > 0)
      with_spec("window_right one key short", [](AttentionSpec& s) { --s.window_right; });
    with_spec("window_right ignored", [](AttentionSpec& s) { s.window_right = -1; });
  }
  if (right.softcap > 0) with_spec("softcap ignored", [](AttentionSpec& s) { s.softcap = 0; });

  const double width = static_cast<double>(in.qk_width());
  for (const auto& [name, scale] :
       {std::pair{"no scale", 1.0}, std::pair{"scale = 1/sqrt(D)", 1 / std::sqrt(width)},
        std::pair{"scale = 1/D", 1 / width}, std::pair{"the scale applied twice", right.scale * right.scale},
        std::pair{"the square root of the scale", std::sqrt(std::abs(right.scale))},
        std::pair{"exp for exp2: a scale log2(e) too large", right.scale * std::numbers::log2e},
        std::pair{"exp2 for exp: a scale ln(2) too small", right.scale * std::numbers::ln2},
        std::pair{"a scale 0.1 % too large", right.scale * 1.001},
        std::pair{"a scale of the other sign", -right.scale}}) {
    if (std::abs(scale - right.scale) > 1e-9 * std::abs(right.scale))
      with_spec(name, [s = scale](AttentionSpec& spec) { spec.scale = s; });
  }

  if (case_.input("kv_lengths") && !in.mask && !in.bias && case_.key.empty() && in.past == 0) {
    with_inputs("in/kv_lengths ignored", [padded = attention_.padded_keys()](AttentionInputs& x) {
      x.k = first_keys(x.k, padded), x.v = first_keys(x.v, padded);
    });
  }
  if (in.mask) with_inputs("in/mask ignored", [](AttentionInputs& x) { x.mask = {}; });
  if (in.bias) with_inputs("in/bias ignored", [](AttentionInputs& x) { x.bias = {}; });
  if (in.sink) with_inputs("in/sink ignored", [](AttentionInputs& x) { x.sink = {}; });
  if (in.alibi_slopes) with_inputs("ALiBi ignored", [](AttentionInputs& x) { x.alibi_slopes = {}; });
  for (const NamedMisreading& misreading : misreadings(right, in)) {
    AttentionSpec seen = right;
    if (misreading.needs_no_mask) {
      seen.causal = Causal::none;
      seen.window_left = seen.window_right = -1;
    }
    take(sampled_answers(misreading.name, seen, [&](AttentionInputs& x) {
      misreading.apply(x);
      if (misreading.needs_no_mask && misreading.name.starts_with("softcap")) x.mask = {};
    }));
  }
  for (const Index tile : {16, 32, 64, 128}) {
    if (in.keys() <= tile) continue;
    with_diagonal("the last tile of " + std::to_string(tile) + " keys missing", right, 0,
                  [tile](AttentionInputs& x) {
                    const Index keys = x.keys() - (x.keys() % tile == 0 ? tile : x.keys() % tile);
                    x.k = first_keys(x.k, keys), x.v = first_keys(x.v, keys);
                  });
  }

  const auto with_gradients = [&](const std::string& name, const GradientMisreading& misread) {
    if (has_gradients()) take(sampled_gradients(name, right, misread));
  };
  const double zero = 0;
  ReadByMistake kept;
  with_gradients("delta = rowsum(do o) missing in dS", [&](AttentionInputs&, ref::AttentionSaved& x) {
    x.o = {&zero, {x.o.extent(0), x.o.extent(1), x.o.extent(2)}, {0, 0, 0}};
  });
  if (in.group() > 1) {
    with_gradients("only the last query head of a group reaches dk and dv",
                   [](AttentionInputs& x, ref::AttentionSaved& saved) {
                     const Index group = x.group();
                     x.q = last_of_groups(x.q, group);
                     x.mask = last_of_groups(x.mask, group);
                     x.bias = last_of_groups(x.bias, group);
                     x.alibi_slopes = last_of_groups(x.alibi_slopes, group);
                     x.sink = last_of_groups(x.sink, group);
                     saved.o = last_of_groups(saved.o, group);
                     saved.lse = last_of_groups(saved.lse, group);
                     saved.d_o = last_of_groups(saved.d_o, group);
                   });
  }
  with_gradients("lse of base 2 read as natural, backward", [&](AttentionInputs&, ref::AttentionSaved& x) {
    x.lse = kept.scaled(x.lse, std::numbers::log2e);
  });
  with_gradients("in/do of another row: the one before",
                 [&](AttentionInputs&, ref::AttentionSaved& x) { x.d_o = kept.row_before(x.d_o); });
  for (const Index shift : {-1, 1}) {
    const std::string row = std::string("another row: the one ") + (shift < 0 ? "before" : "after");
    with_gradients("lse of " + row + ", backward",
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.lse = kept.of_row(x.lse, shift); });
    with_gradients("delta of " + row,
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.o = kept.o_of_delta_of_row(x, shift); });
  }
  if (in.q_heads() > 1) {
    with_gradients("lse of another head: the next, backward",
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.lse = kept.of_next_head(x.lse); });
    with_gradients("in/do of another head: the next",
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.d_o = kept.of_next_head(x.d_o); });
    with_gradients("delta of another head: the next",
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.o = kept.o_of_delta_of_next_head(x); });
  }
  with_gradients("delta of the first half of the columns",
                 [&](AttentionInputs&, ref::AttentionSaved& x) { x.o = kept.o_of_delta_of_half(x); });
  for (const Index shift : {1, -1}) {
    if (!has_gradients() || right.causal == Causal::none) break;
    AttentionSpec seen = right;
    seen.causal = Causal::top_left;
    take(sampled_gradients(
        shift > 0 ? "backward: a causal diagonal one key too far"
                  : "backward: a causal diagonal one key short",
        seen, [&](AttentionInputs& x, ref::AttentionSaved&) { x.past = diagonal(right, x, 0) + shift; }));
  }
  take(overwritten_dbias(attention_, saved_, expected));
  for (const bool twice : {false, true}) {
    std::vector<Decoy> scaled =
        sampled_gradients(twice ? "dq or dk multiplied by the scale twice" : "dq or dk without the scale",
                          right, [](AttentionInputs&, ref::AttentionSaved&) {});
    std::erase_if(scaled, [](const Decoy& x) { return x.output == "dv"; });
    for (Decoy& answer : scaled) {
      for (double& x : answer.value) x *= twice ? right.scale : 1 / right.scale;
    }
    if (has_gradients() && right.scale != 0) take(std::move(scaled));
  }

  const bool is_natural = attention_.lse_unit == 1;
  take(sampled_lse(
      is_natural ? "lse in base 2" : "lse in base e",
      is_natural ? [](double m, double l) { return (m + std::log(l)) * std::numbers::log2e; }
                 : [](double m, double l) { return m + std::log(l); }));
  take(sampled_lse("lse without the maximum", [](double, double l) { return std::log(l); }));
  const double unit = attention_.lse_unit;
  if (right.scale != 0 && right.scale != 1) {
    take(sampled_lse("lse with an unscaled maximum", [unit, scale = right.scale](double m, double l) {
      return (m / scale + std::log(l)) * unit;
    }));
  }
  take(sampled_lse("lse with its row sum in base 2", [](double m, double l) { return m + std::log2(l); }));
  take(sampled_lse("the maximum in place of lse", [](double m, double) { return m; }));
  take(sampled_lse("lse of the other sign", [](double m, double l) { return -m - std::log(l); }));
  return all;
}

std::vector<DiagnosisEntry> AttentionProblem::explanations(std::span<const Expected> expected) const {
  return explain_attention(attention_, saved_, weight_store_, contract_, *case_.in.at("q").dtype, expected);
}

}  // namespace attest
