// The sums that gradients are.
#include "verify/ops/attention_gradient_sums.hpp"

#include <algorithm>
#include <cmath>

#include "verify/bounds/storage_grid.hpp"
#include "verify/compare.hpp"
#include "verify/replay_statistics.hpp"

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
      : e_(e), grid_(contract.p_dtype), scale_(scale), not_replayed_(share_not_replayed(e)) {}

  bool are_known() const { return not_replayed_ < most_not_replayed; }
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
  sum.is_replayed = stores.are_known(), sum.dtype = e.dtype;
  for (Index d = 0; d < place.extent(2); ++d) {
    const Index at = &place(h, i, d) - e.value.data();
    const double got = e.dumped->values[at];
    is_wrong |= !within_bound(e, at, got);
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

}  // namespace

std::vector<WeightedSum> wrong_query_sums(const AttentionCase& attention,
                                          std::span<const SavedForBackward> saved, const Contract& contract,
                                          const Expected& dq) {
  if (attention.spec.softcap != 0) return {};
  const Stores stores(contract, dq, attention.spec.scale);
  std::vector<Place> places;
  const double* data = dq.value.data();
  for (const bool wanted_wrong : {true, false}) {
    if (places.size() >= few_sums) break;
    places.clear();
    for (std::size_t n = 0; n < attention.sequences.size(); ++n) {
      const Sequence& s = attention.sequences[n];
      const View<const double, 3> place = attention.like_q(data, s);
      for (Index h = 0; h < s.in.q_heads(); ++h) {
        for (Index i = 0; i < s.queries; ++i) {
          WeightedSum sum;
          if (read_dumped(dq, stores, place, h, i, wanted_wrong, sum))
            places.push_back({n, h, i, std::move(sum)});
        }
      }
    }
  }
  thin_out(places, most_sums);
  std::vector<WeightedSum> sums;
  for (Place& at : places) {
    const AttentionInputs& in = attention.sequences[at.sequence].in;
    const double scale = attention.spec.scale, delta_shift = saved[at.sequence].known_delta_shift(at.h, at.i);
    std::vector<double> ds(in.keys()), s(in.keys());
    ref::attention_backward_query(attention.spec, in, saved[at.sequence].for_ref(), at.h, at.i, {},
                                  whole(ds));
    ref::attention_scores(attention.spec, in, at.h, at.i, whole(s));
    for (Index j = 0; j < in.keys(); ++j) {
      if (ds[j] == 0) continue;
      const double p = std::exp(s[j] - saved[at.sequence].lse(at.h, at.i));
      at.sum.terms.push_back({j, scale * ds[j], &in.k(in.kv_head(at.h), j, 0),
                              scale * (p > 0 ? stores.ds(p, ds[j] / p - delta_shift) : 0)});
    }
    at.sum.step = in.k.stride(2);
    at.sum.places = in.keys();
    sums.push_back(std::move(at.sum));
  }
  return sums;
}

std::vector<WeightedSum> wrong_key_sums(const AttentionCase& attention,
                                        std::span<const SavedForBackward> saved, const Contract& contract,
                                        const Expected& gradient) {
  if (attention.spec.softcap != 0) return {};
  const Stores stores(contract, gradient, attention.spec.scale);
  const bool is_dk = gradient.output == "dk";
  const double* data = gradient.value.data();
  std::vector<Place> places;
  for (const bool wanted_wrong : {true, false}) {
    for (std::size_t n = 0; n < attention.sequences.size() && places.size() < few_sums; ++n) {
      const Sequence& s = attention.sequences[n];
      const View<const double, 3> place = is_dk ? attention.like_k(data, s) : attention.like_v(data, s);
      for (Index g = 0; g < s.in.kv_heads() && places.size() < few_sums; ++g) {
        places.clear();  // those of one head
        for (Index j = 0; j < s.keys; ++j) {
          WeightedSum sum;
          if (read_dumped(gradient, stores, place, g, j, wanted_wrong, sum))
            places.push_back({n, g, j, std::move(sum)});
        }
      }
    }
  }
  if (places.empty()) return {};
  thin_out(places, most_sums);

  const AttentionInputs& in = attention.sequences[places.front().sequence].in;
  const ref::AttentionSaved of_sequence = saved[places.front().sequence].for_ref();
  const Index g = places.front().h, group = in.group();
  if (static_cast<double>(group * in.queries()) * static_cast<double>(in.keys() * in.qk_width()) >
      most_operations)
    return {};
  std::vector<double> s(in.keys());
  for (Index h = g * group; h < (g + 1) * group; ++h) {
    for (Index i = 0; i < in.queries(); ++i) {
      ref::attention_scores(attention.spec, in, h, i, whole(s));
      double delta = 0;
      for (Index e = 0; e < in.v_width(); ++e) delta += of_sequence.d_o(h, i, e) * of_sequence.o(h, i, e);
      for (Place& at : places) {
        const Index j = at.i + in.past;
        const double p = std::exp(s[j] - of_sequence.lse(h, i));
        if (!(p > 0) || !std::isfinite(p)) continue;
        double dp = 0;
        for (Index e = 0; e < in.v_width(); ++e) dp += of_sequence.d_o(h, i, e) * in.v(g, j, e);
        const Index place = (h - g * group) * in.queries() + i;
        const double scale = attention.spec.scale, x = dp - delta;
        const double x_seen = x - saved[at.sequence].known_delta_shift(h, i);
        at.sum.terms.push_back({place, is_dk ? scale * p * x : p,
                                is_dk ? &in.q(h, i, 0) : &of_sequence.d_o(h, i, 0),
                                is_dk ? scale * stores.ds(p, x_seen) : stores.p(p)});
      }
    }
  }
  std::vector<WeightedSum> sums;
  for (Place& at : places) {
    at.sum.step = is_dk ? in.q.stride(2) : of_sequence.d_o.stride(2);
    at.sum.places = group * in.queries();
    sums.push_back(std::move(at.sum));
  }
  return sums;
}

}  // namespace attest
