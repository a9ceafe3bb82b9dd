// The sums that gradients are.
#include "verify/ops/attention/gradient_sums.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "verify/bounds/storage_grid.hpp"
#include "verify/compare.hpp"
#include "verify/statistics/replay_statistics.hpp"

namespace attest {
namespace {

constexpr std::size_t most_sums = 16, few_sums = 4;
constexpr double most_operations = 4e9;

View<double, 1> whole(std::vector<double>& x) {
  return {x.data(), {static_cast<Index>(x.size())}};
}

/// How the kernel seems to have stored P and dS.
class Stores {
 public:
  Stores(const Contract& contract, const Expected& e, double scale)
      : e_(e), grid_(contract.p_dtype), scale_(scale), not_replayed_(e.not_replayed.upper()) {}

  /// If it stores in one of the ways that are tried, all roundings are wrong for the others.
  bool are_known() const { return not_replayed_ < (e_.has_all_replays ? 0.5 : most_not_replayed); }
  double shift(Index at) const { return are_known() ? e_.replay()->shift[at] : 0; }
  double sigma(Index at) const {
    return are_known() ? std::sqrt(variance_beside_replay(e_, at, not_replayed_)) : e_.sigma[at];
  }
  double p(double exact) const { return are_known() ? grid_.round(exact) : exact; }
  /// p x, in the ways of store_variants.
  double ds(double p, double x) const {
    if (!are_known()) return p * x;
    const int variant = e_.replay()->variant;
    const double unit = variant % 2 == 1 ? std::abs(scale_) : 1;
    return grid_.round((variant >= 2 ? grid_.round(p) : p) * x * unit) / unit;
  }

 private:
  const Expected& e_;
  const bounds::StorageGrid grid_;
  const double scale_, not_replayed_;
};

/// What was dumped at (h, i, .), and what should have been; false if all of it is right, but wanted wrong, or
/// if it is not finite.
bool read_dumped(const Expected& e, const Stores& stores, const View<const double, 3>& place, Index h,
                 Index i, bool wanted_wrong, WeightedSum& sum) {
  bool is_wrong = !wanted_wrong, is_finite = true;
  constexpr double gross = 20;  // standard deviations
  if (stores.are_known()) sum.replayed_in = e.dtype;
  for (Index d = 0; d < place.extent(2); ++d) {
    const Index at = &place(h, i, d) - e.value.data();
    const double got = e.dumped->values[at];
    is_wrong |= !within_bound(e, at, got);
    sum.is_gross |= std::abs(got - e.value[at]) > gross * e.sigma[at];
    is_finite &= std::isfinite(got);
    sum.got.push_back(got);
    sum.exact.push_back(e.value[at] + stores.shift(at));
    sum.sigma.push_back(stores.sigma(at));
  }
  return is_wrong && is_finite;
}

/// At most `count` of all, evenly spread.
template <class T>
void thin_out(std::vector<T>& all, std::size_t count) {
  if (all.size() <= count) return;
  std::vector<T> some;
  for (std::size_t n = 0; n < count; ++n) some.push_back(all[n * (all.size() - 1) / (count - 1)]);
  all = std::move(some);
}

struct Place {
  std::size_t sequence;
  Index h, i;
  WeightedSum sum;
};

double product(const View<const double, 3>& a, Index h, Index i, const View<const double, 3>& b, Index g,
               Index j) {
  double sum = 0;
  for (Index e = 0; e < a.extent(2); ++e) sum += a(h, i, e) * b(g, j, e);
  return sum;
}

/// A fault that is everywhere may push few rows, and those by chance, beyond their bounds; a gross one does
/// not.
bool are_enough(const std::vector<Place>& places) {
  return places.size() >= few_sums ||
         std::ranges::any_of(places, [](const Place& place) { return place.sum.is_gross; });
}

/// The terms of one gradient.
class Terms {
 public:
  Terms(const AttentionCase& attention, std::span<const SavedForBackward> saved, const Contract& contract,
        const Expected& e)
      : attention_(attention),
        saved_(saved),
        stores_(contract, e, attention.spec.scale),
        is_dv_(e.output == "dv"),
        scale_(is_dv_ ? 1 : attention.spec.scale) {
    const double factor = attention.spec.scale * std::numbers::log2e;
    if (factor != 0 && !contract.backward_k_factor && !attention.has_past())
      stored_k_ = attention.scaled("k", factor);
    sums_.v_width = attention.sequences.front().in.v_width();
    sums_.d_o_step = saved.front().for_ref().d_o.stride(2);
    sums_.o_step = saved.front().for_ref().o.stride(2);
    sums_.v_step = attention.sequences.front().in.v.stride(2);
    sums_.stored = [stores = stores_, is_dv = is_dv_, scale = scale_](const GradientFactors& f) {
      return is_dv ? stores.p(f.p()) : scale * stores.ds(f.p(), (f.dp - f.delta) * f.slope);
    };
  }

  const Stores& stores() const { return stores_; }

  /// Call before add() for the keys of row (h, i) of a sequence.
  void start_row(std::size_t sequence, Index h, Index i) {
    sequence_ = sequence, h_ = h, i_ = i;
    const AttentionInputs& in = attention_.sequences[sequence].in_backward;
    const ref::AttentionSaved from = saved_[sequence].for_ref();
    scores_.resize(in.keys());
    ref::attention_scores(attention_.spec, in, h, i, whole(scores_));
    scores_of_stored_k_.assign(in.keys(), std::numeric_limits<double>::quiet_NaN());
    if (!stored_k_.empty()) {
      AttentionInputs other = in;
      other.k = attention_.like_k(stored_k_.data(), attention_.sequences[sequence]);
      ref::attention_scores(attention_.spec, other, h, i, whole(scores_of_stored_k_));
    }
    delta_ = product(from.d_o, h, i, from.o, h, i);
  }
  /// The term of key j of that row, if it has any weight.
  void add(Index j, Index place, const double* vector, WeightedSum& sum,
           std::vector<GradientFactors>& factors) const {
    const AttentionInputs& in = attention_.sequences[sequence_].in_backward;
    const ref::AttentionSaved from = saved_[sequence_].for_ref();
    const Index g = in.kv_head(h_);
    GradientFactors f{scores_[j],         from.lse(h_, i_), 0, delta_, 1, 0, &from.d_o(h_, i_, 0),
                      &from.o(h_, i_, 0), &in.v(g, j, 0)};
    if (!(f.p() > 0) || !std::isfinite(f.p())) return;
    f.dp = product(from.d_o, h_, i_, in.v, g, j);
    if (attention_.spec.softcap > 0) {
      f.capped =
          std::tanh(attention_.spec.scale * product(in.q, h_, i_, in.k, g, j) / attention_.spec.softcap);
      f.slope = 1 - f.capped * f.capped;
    }
    f.score_of_stored_k = scores_of_stored_k_[j];
    const double exact = is_dv_ ? f.p() : scale_ * f.ds();
    if (stores_.are_known()) f.delta += saved_[sequence_].known_delta_shift(h_, i_);
    sum.terms.push_back({place, exact, vector, sums_.stored(f)});
    factors.push_back(f);
  }

  void add_row(WeightedSum sum, std::vector<GradientFactors> factors, Index places_of_head) {
    sums_.places_of_head = std::max(sums_.places_of_head, places_of_head);
    sums_.rows.push_back(std::move(sum));
    sums_.factors.push_back(std::move(factors));
  }
  GradientSums take() { return std::move(sums_); }

 private:
  const AttentionCase& attention_;
  const std::span<const SavedForBackward> saved_;
  const Stores stores_;
  const bool is_dv_;
  const double scale_;
  GradientSums sums_;
  std::size_t sequence_ = 0;
  Index h_ = 0, i_ = 0;
  std::vector<double> scores_, stored_k_, scores_of_stored_k_;
  double delta_ = 0;
};

}  // namespace

GradientSums wrong_query_sums(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                              const Contract& contract, const Expected& dq) {
  Terms terms(attention, saved, contract, dq);
  std::vector<Place> places;
  const double* data = dq.value.data();
  for (const bool wanted_wrong : {true, false}) {
    if (are_enough(places)) break;
    places.clear();
    for (std::size_t n = 0; n < attention.sequences.size(); ++n) {
      const Sequence& s = attention.sequences[n];
      const View<const double, 3> place = attention.like_q(data, s);
      for (Index h = 0; h < s.in.q_heads(); ++h) {
        for (Index i = 0; i < s.queries; ++i) {
          WeightedSum sum;
          if (read_dumped(dq, terms.stores(), place, h, i, wanted_wrong, sum))
            places.push_back({n, h, i, std::move(sum)});
        }
      }
    }
  }
  thin_out(places, most_sums);
  for (Place& at : places) {
    const AttentionInputs& in = attention.sequences[at.sequence].in_backward;
    std::vector<GradientFactors> factors;
    terms.start_row(at.sequence, at.h, at.i);
    for (Index j = 0; j < in.keys(); ++j) terms.add(j, j, &in.k(in.kv_head(at.h), j, 0), at.sum, factors);
    at.sum.step = in.k.stride(2);
    at.sum.places = in.keys();
    terms.add_row(std::move(at.sum), std::move(factors), in.keys());
  }
  return terms.take();
}

GradientSums wrong_key_sums(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                            const Contract& contract, const Expected& gradient) {
  Terms terms(attention, saved, contract, gradient);
  const bool is_dk = gradient.output == "dk";
  const double* data = gradient.value.data();
  std::vector<Place> places;
  for (const bool wanted_wrong : {true, false}) {
    for (std::size_t n = 0; n < attention.sequences.size() && !are_enough(places); ++n) {
      const Sequence& s = attention.sequences[n];
      const View<const double, 3> place = is_dk ? attention.like_k(data, s) : attention.like_v(data, s);
      for (Index g = 0; g < s.in.kv_heads() && !are_enough(places); ++g) {
        places.clear();  // those of one head
        for (Index j = 0; j < s.keys; ++j) {
          WeightedSum sum;
          if (read_dumped(gradient, terms.stores(), place, g, j, wanted_wrong, sum))
            places.push_back({n, g, j, std::move(sum)});
        }
      }
    }
  }
  if (places.empty()) return {};
  thin_out(places, most_sums);

  const std::size_t sequence = places.front().sequence;
  const AttentionInputs& in = attention.sequences[sequence].in_backward;
  const View<const double, 3> vectors = is_dk ? in.q : saved[sequence].for_ref().d_o;
  const Index g = places.front().h, group = in.group();
  if (static_cast<double>(group * in.queries()) * static_cast<double>(in.keys() * in.qk_width()) >
      most_operations)
    return {};
  std::vector<std::vector<GradientFactors>> factors(places.size());
  for (Index h = g * group; h < (g + 1) * group; ++h) {
    for (Index i = 0; i < in.queries(); ++i) {
      terms.start_row(sequence, h, i);
      for (std::size_t n = 0; n < places.size(); ++n)
        terms.add(places[n].i + in.past, (h - g * group) * in.queries() + i, &vectors(h, i, 0), places[n].sum,
                  factors[n]);
    }
  }
  for (std::size_t n = 0; n < places.size(); ++n) {
    places[n].sum.step = vectors.stride(2);
    places[n].sum.places = group * in.queries();
    terms.add_row(std::move(places[n].sum), std::move(factors[n]), in.queries());
  }
  return terms.take();
}

}  // namespace attest
