// What attention kernels get wrong in the backward pass alone, as answers that a failed dump can be held
// against.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <set>
#include <tuple>

#include "ref/attention.hpp"
#include "verify/ops/attention/gradient_of_bias.hpp"
#include "verify/ops/attention/overwritten_bias.hpp"
#include "verify/ops/attention/problem.hpp"

namespace attest {
namespace {

/// What a backward pass may read in place of what it should: made once for each misreading and array, and
/// kept.
class ReadByMistake {
 public:
  using Rows = View<const double, 2>;
  using Vectors = View<const double, 3>;

  Rows scaled(Rows lse, double factor) {
    return kept(rows_, "scaled by " + std::to_string(factor), lse,
                [&](Index h, Index i) { return factor * lse(h, i); });
  }
  Rows of_row(Rows lse, Index shift) {
    return kept(rows_, shift > 0 ? "after" : "before", lse,
                [&](Index h, Index i) { return lse(h, shifted(i, shift, lse.extent(1))); });
  }
  Rows of_next_head(Rows lse) {
    return kept(rows_, "head", lse, [&](Index h, Index i) { return lse((h + 1) % lse.extent(0), i); });
  }
  /// The row maxima of the scores.
  Rows maxima(const AttentionSpec& spec, const AttentionInputs& in, Rows lse) {
    std::vector<double> s(in.keys());
    return kept(rows_, "maximum", lse, [&](Index h, Index i) {
      ref::attention_scores(spec, in, h, i, {s.data(), {in.keys()}});
      double m = -std::numeric_limits<double>::infinity();  // of a sequence without keys
      for (const double score : s) m = std::max(m, score);
      return m;
    });
  }
  Vectors of_row(Vectors from, Index shift) {
    return kept(vectors_, shift > 0 ? "after" : "before", from,
                [&](Index h, Index i, Index e) { return from(h, shifted(i, shift, from.extent(1)), e); });
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
  using Kept = std::map<std::tuple<std::string, const double*, Index>, Array<double, Rank>>;

  static Index shifted(Index i, Index by, Index rows) { return std::clamp<Index>(i + by, 0, rows - 1); }
  static double product(const ref::AttentionSaved& x, Index h, Index i, Index columns) {
    double sum = 0;
    for (Index e = 0; e < columns; ++e) sum += x.d_o(h, i, e) * x.o(h, i, e);
    return sum;
  }

  template <class F>
  static Rows kept(Kept<2>& all, const std::string& misreading, Rows like, const F& f) {
    const auto [at, is_new] = all.try_emplace({misreading, like.data_handle(), like.extent(1)});
    if (is_new) at->second = Array<double, 2>({like.extent(0), like.extent(1)});
    for (Index h = 0; is_new && h < like.extent(0); ++h)
      for (Index i = 0; i < like.extent(1); ++i) at->second(h, i) = f(h, i);
    return at->second.view();
  }
  template <class F>
  static Vectors kept(Kept<3>& all, const std::string& misreading, Vectors like, const F& f) {
    const auto [at, is_new] = all.try_emplace({misreading, like.data_handle(), like.extent(1)});
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

/// Scores are computed once more up to this many products.
constexpr double most_products = 1 << 28;

/// Along an axis every `step`th slice from `first` on, `count` of them.
template <class T, int Rank>
View<T, Rank> slices(View<T, Rank> x, int axis, Index first, Index step, Index count) {
  if (!x) return x;
  typename View<T, Rank>::Extents extents, strides;
  for (int a = 0; a < Rank; ++a) {
    extents[a] = x.extent(a);
    strides[a] = x.stride(a);
  }
  T* const data = x.data_handle() + first * strides[axis];
  extents[axis] = count;
  strides[axis] *= step;
  return {data, extents, strides};
}

/// Replaces all that has query heads and rows, [Hq, Sq, ...].
template <class Part>
void keep_queries(AttentionInputs& x, ref::AttentionSaved& saved, const Part& part) {
  x.q = part(x.q);
  x.mask = part(x.mask);
  x.bias = part(x.bias);
  saved.o = part(saved.o);
  saved.lse = part(saved.lse);
  saved.d_o = part(saved.d_o);
}

}  // namespace

std::vector<Decoy> AttentionProblem::gradient_alternatives(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  if (!has_gradients()) return all;
  const AttentionSpec& right = attention_.spec;
  const AttentionInputs& in = attention_.sequences.front().in;
  const auto take = [&](std::vector<Decoy> answers) {
    for (Decoy& answer : answers) all.push_back(std::move(answer));
  };
  const auto with_gradients = [&](const std::string& name, const GradientMisreading& misread) {
    take(sampled_gradients(name, right, misread));
  };
  const double zero = 0;
  ReadByMistake kept;
  with_gradients("backward: delta = rowsum(do o) missing in dS",
                 [&](AttentionInputs&, ref::AttentionSaved& x) {
                   x.o = {&zero, {x.o.extent(0), x.o.extent(1), x.o.extent(2)}, {0, 0, 0}};
                 });
  if (in.group() > 1) {
    with_gradients("only the last query head of a group reaches dk and dv",
                   [](AttentionInputs& x, ref::AttentionSaved& saved) {
                     const auto last_of_groups = [group = x.group(), heads = x.kv_heads()](auto view) {
                       return slices(view, 0, group - 1, group, heads);
                     };
                     keep_queries(x, saved, last_of_groups);
                     x.alibi_slopes = last_of_groups(x.alibi_slopes);
                     x.sink = last_of_groups(x.sink);
                   });
    // Of a single head, the missing range of rows is fitted.
    const bool has_other_diagonal =
        right.causal == Causal::none && (right.window_left >= 0 || right.window_right >= 0);
    AttentionSpec seen = right;
    if (right.causal != Causal::none) seen.causal = Causal::top_left;
    std::set<Index> ends;  // where a last tile of rows may begin
    for (const Index tile : {16, 32, 64, 128}) ends.insert((in.queries() - 1) / tile * tile);
    for (const Index end : ends) {
      if (end <= 0 || has_other_diagonal) continue;
      const std::string rows = std::to_string(end) + ".." + std::to_string(in.queries() - 1);
      take(sampled_gradients("query rows " + rows + " of each head missing from dk and dv", seen,
                             [&, end](AttentionInputs& x, ref::AttentionSaved& saved) {
                               x.past = diagonal(right, x, 0);
                               const Index rows_left = std::min(end, x.queries());
                               keep_queries(x, saved, [rows_left](auto view) {
                                 return slices(view, 1, 0, 1, rows_left);
                               });
                             }));
    }
  }
  const double products = static_cast<double>(in.q_heads() * in.queries()) *
                          static_cast<double>(in.keys() * in.qk_width() * std::ssize(attention_.sequences));
  if (products <= most_products) {
    with_gradients("backward: m in place of lse: weights that are not normalised",
                   [&](AttentionInputs& x, ref::AttentionSaved& saved) {
                     saved.lse = kept.maxima(right, x, saved.lse);
                   });
  }
  with_gradients("backward: lse of base 2 read as natural", [&](AttentionInputs&, ref::AttentionSaved& x) {
    x.lse = kept.scaled(x.lse, std::numbers::log2e);
  });
  with_gradients("backward: a natural lse read as of base 2", [&](AttentionInputs&, ref::AttentionSaved& x) {
    x.lse = kept.scaled(x.lse, std::numbers::ln2);
  });
  with_gradients("backward: delta = rowsum(do do), not rowsum(do o)",
                 [&](AttentionInputs&, ref::AttentionSaved& x) { x.o = x.d_o; });
  for (const Index shift : {-1, 1}) {
    const std::string row = std::string("the row ") + (shift < 0 ? "before" : "after");
    with_gradients("backward: in/do of " + row,
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.d_o = kept.of_row(x.d_o, shift); });
    with_gradients("backward: lse of " + row,
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.lse = kept.of_row(x.lse, shift); });
    with_gradients("backward: delta of " + row,
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.o = kept.o_of_delta_of_row(x, shift); });
  }
  if (in.q_heads() > 1) {
    with_gradients("backward: lse of the next head",
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.lse = kept.of_next_head(x.lse); });
    with_gradients("backward: in/do of the next head",
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.d_o = kept.of_next_head(x.d_o); });
    with_gradients("backward: delta of the next head",
                   [&](AttentionInputs&, ref::AttentionSaved& x) { x.o = kept.o_of_delta_of_next_head(x); });
  }
  with_gradients("backward: delta of the first " + std::to_string(in.v_width() / 2) + " columns",
                 [&](AttentionInputs&, ref::AttentionSaved& x) { x.o = kept.o_of_delta_of_half(x); });
  for (const Index shift : {1, -1}) {
    if (right.causal == Causal::none) break;
    for (const bool keeps_window : {false, true}) {  // which begins where it should
      AttentionSpec seen = right;
      seen.causal = Causal::top_left;
      if (keeps_window) seen.window_left += shift;
      if (keeps_window && (right.window_left < 0 || seen.window_left < 0)) continue;
      take(sampled_gradients(
          std::string("backward: a causal diagonal one key ") + (shift > 0 ? "too far" : "short") +
              (keeps_window ? ", with the right window" : ""),
          seen, [&](AttentionInputs& x, ref::AttentionSaved&) { x.past = diagonal(right, x, 0) + shift; }));
    }
  }
  take(overwritten_dbias(attention_, saved_, expected));
  take(wrong_dbias(attention_, saved_, expected));
  take(wrong_dsink(attention_, saved_, expected));
  for (const bool twice : {false, true}) {
    std::vector<Decoy> scaled =
        sampled_gradients(twice ? "dq or dk multiplied by the scale twice" : "dq or dk without the scale",
                          right, [](AttentionInputs&, ref::AttentionSaved&) {});
    std::erase_if(scaled, [](const Decoy& x) { return x.output == "dv"; });
    for (Decoy& answer : scaled) {
      for (double& x : answer.value) x *= twice ? right.scale : 1 / right.scale;
    }
    if (right.scale != 0) take(std::move(scaled));
  }

  return all;
}

}  // namespace attest
