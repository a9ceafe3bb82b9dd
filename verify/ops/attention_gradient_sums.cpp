// The sums that gradients are.
#include "verify/ops/attention_gradient_sums.hpp"

#include <algorithm>
#include <cmath>

#include "verify/compare.hpp"

namespace attest {
namespace {

constexpr std::size_t most_sums = 16;
constexpr double most_operations = 4e9;

View<double, 1> whole(std::vector<double>& x) {
  return {x.data(), {static_cast<Index>(x.size())}};
}

/// What was dumped at (h, i, .), and what should have been; false if nothing is wrong there, or not finite.
bool read_dumped(const Expected& e, const View<const double, 3>& place, Index h, Index i, WeightedSum& sum) {
  bool is_wrong = false, is_finite = true;
  for (Index d = 0; d < place.extent(2); ++d) {
    const Index at = &place(h, i, d) - e.value.data();
    const double got = e.dumped->values[at];
    is_wrong |= !within_bound(e, at, got);
    is_finite &= std::isfinite(got);
    sum.got.push_back(got);
    sum.exact.push_back(e.value[at]);
    sum.sigma.push_back(e.sigma[at]);
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
                                          std::span<const SavedForBackward> saved, const Expected& dq) {
  if (attention.spec.softcap != 0) return {};
  std::vector<Place> places;
  const double* data = dq.value.data();
  for (std::size_t n = 0; n < attention.sequences.size(); ++n) {
    const Sequence& s = attention.sequences[n];
    const View<const double, 3> place = attention.like_q(data, s);
    for (Index h = 0; h < s.in.q_heads(); ++h) {
      for (Index i = 0; i < s.queries; ++i) {
        WeightedSum sum;
        if (read_dumped(dq, place, h, i, sum)) places.push_back({n, h, i, std::move(sum)});
      }
    }
  }
  thin_out(places, most_sums);
  std::vector<WeightedSum> sums;
  for (Place& at : places) {
    const AttentionInputs& in = attention.sequences[at.sequence].in;
    std::vector<double> ds(in.keys());
    ref::attention_backward_query(attention.spec, in, saved[at.sequence].for_ref(), at.h, at.i, {},
                                  whole(ds));
    for (Index j = 0; j < in.keys(); ++j) {
      if (ds[j] != 0)
        at.sum.terms.push_back({j, attention.spec.scale * ds[j], &in.k(in.kv_head(at.h), j, 0)});
    }
    at.sum.step = in.k.stride(2);
    at.sum.places = in.keys();
    sums.push_back(std::move(at.sum));
  }
  return sums;
}

std::vector<WeightedSum> wrong_key_sums(const AttentionCase& attention,
                                        std::span<const SavedForBackward> saved, const Expected& gradient) {
  if (attention.spec.softcap != 0) return {};
  const bool is_dk = gradient.output == "dk";
  const double* data = gradient.value.data();
  std::vector<Place> places;
  for (std::size_t n = 0; n < attention.sequences.size() && places.empty(); ++n) {
    const Sequence& s = attention.sequences[n];
    const View<const double, 3> place = is_dk ? attention.like_k(data, s) : attention.like_v(data, s);
    for (Index g = 0; g < s.in.kv_heads() && places.empty(); ++g) {
      for (Index j = 0; j < s.keys; ++j) {
        WeightedSum sum;
        if (read_dumped(gradient, place, g, j, sum)) places.push_back({n, g, j, std::move(sum)});
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
        at.sum.terms.push_back({place, is_dk ? attention.spec.scale * p * (dp - delta) : p,
                                is_dk ? &in.q(h, i, 0) : &of_sequence.d_o(h, i, 0)});
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
