// What a kernel formed delta of.
#include "verify/ops/attention/delta.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>

#include "ref/attention.hpp"
#include "verify/bounds/arithmetic.hpp"
#include "verify/bounds/storage_grid.hpp"
#include "verify/statistics/replay_statistics.hpp"

namespace attest {
namespace {

constexpr Index rows_to_choose_from = 64;

/// Delta is do . o of o as stored, of o before that, or the sum of p (do . v) over weights as computed, which
/// is that of the exact o.
enum DeltaOf { stored_o, computed_o, weights, sources };

/// What delta of each source is more than that of the stored o.
using Shifts = std::array<double, sources>;

Shifts shifts_of_row(const AttentionCase& attention, const Sequence& s, const SavedForBackward& saved,
                     const Expected& o, const Replay* replay, Index h, Index i) {
  const View<const double, 3> place = attention.like_o(o.value.data(), s);
  Shifts shift{};
  for (Index e = 0; e < place.extent(2); ++e) {
    const Index at = &place(h, i, e) - o.value.data();
    const double d_o = saved.d_o(h, i, e), off = o.value[at] - saved.o(h, i, e);
    shift[computed_o] += d_o * (off + (replay ? replay->shift[at] : 0));
    shift[weights] += d_o * off;
  }
  return shift;
}

/// How well each way to store dS, with delta of each source, explains a row of dq.
class Misfits {
 public:
  Misfits(const AttentionCase& attention, const Contract& contract, const Tensor& dq)
      : attention_(attention), grid_(contract.p_dtype), dq_(dq) {}

  void add(const Sequence& s, const SavedForBackward& saved, Index h, Index i, const Shifts& of_delta) {
    const AttentionInputs& in = s.in_backward;
    const double scale = attention_.spec.scale, size = std::abs(scale);
    const View<const double, 3> dumped = attention_.like_q(dq_.values.data(), s);
    std::vector<double> score(in.keys()), ds(in.keys()), exact(in.qk_width()), variance(in.qk_width());
    const auto whole = [](std::vector<double>& x) -> View<double, 1> {
      return {x.data(), {static_cast<Index>(x.size())}};
    };
    ref::attention_backward_query(attention_.spec, in, saved.for_ref(), h, i, whole(exact), whole(ds));
    ref::attention_scores(attention_.spec, in, h, i, whole(score));
    std::array<std::vector<double>, ways> shifts;
    for (std::vector<double>& shift : shifts) shift.resize(in.qk_width());
    for (Index j = 0; j < in.keys(); ++j) {
      const double p = std::exp(score[j] - saved.lse(h, i));
      if (!(p > 0)) continue;
      std::array<double, ways> error;
      for (std::size_t way = 0; way < ways; ++way) {
        const double x = ds[j] / p - of_delta[way / stores];
        const double unit = way % 2 == 1 ? size : 1;
        error[way] = grid_.round((way / 2 % 2 == 1 ? grid_.round(p) : p) * x * unit) / unit - ds[j];
      }
      const double spacing = grid_.spacing(ds[j]);
      for (Index d = 0; d < in.qk_width(); ++d) {
        const double k = scale * in.k(in.kv_head(h), j, d);
        variance[d] += spacing * spacing / 12 * k * k;
        for (std::size_t way = 0; way < ways; ++way) shifts[way][d] += error[way] * k;
      }
    }
    for (Index d = 0; d < in.qk_width(); ++d) {
      const double got = dumped(h, i, d), spacing = ulp(exact[d], *dq_.dtype);
      const auto misfit = [&](double shift) {
        const double left = got - round_to(exact[d] + shift, *dq_.dtype);
        // A few wild elements do not decide.
        return std::min(left * left / (variance[d] + spacing * spacing / 12), 9.0);
      };
      if (!std::isfinite(got) || !std::isfinite(exact[d])) continue;
      for (std::size_t way = 0; way < ways; ++way) of_way_[way] += misfit(shifts[way][d]);
      of_none_ += misfit(0);
    }
  }

  void add(const Misfits& other) {
    for (std::size_t way = 0; way < ways; ++way) of_way_[way] += other.of_way_[way];
    of_none_ += other.of_none_;
  }

  std::optional<DeltaOf> best() const {
    const auto way = std::ranges::min_element(of_way_) - of_way_.begin();
    if (!(of_way_[way] < of_none_)) return {};
    return static_cast<DeltaOf>(way / stores);
  }

 private:
  // From the computed or the stored weight, in units of 1 or of the scale.
  static constexpr std::size_t stores = 4, ways = stores * sources;

  const AttentionCase& attention_;
  const bounds::StorageGrid grid_;
  const Tensor& dq_;
  std::array<double, ways> of_way_{};
  double of_none_ = 0;
};

}  // namespace

void find_deltas(const AttentionCase& attention, const Contract& contract, const Expected& o,
                 const Tensor* dq, std::vector<SavedForBackward>& saved) {
  if (!dq || !bounds::Arithmetic(contract).p_is_rounded) return;
  if (attention.spec.softcap != 0 || attention.spec.scale == 0) return;
  const Replay* replay = o.not_replayed.upper() < most_not_replayed ? o.replay() : nullptr;
  Index rows = 0, n = 0;
  for (const Sequence& s : attention.sequences) rows += s.in.q_heads() * s.queries;
  const Index step = std::max<Index>(1, rows / rows_to_choose_from);
  const auto for_rows = [&](const auto& f) {
    for (std::size_t at = 0; at < saved.size(); ++at) {
      const Sequence& s = attention.sequences[at];
      for (Index h = 0; h < s.in.q_heads(); ++h) {
        for (Index i = 0; i < s.queries; ++i)
          f(s, saved[at], h, i, shifts_of_row(attention, s, saved[at], o, replay, h, i));
      }
    }
  };

  std::vector<std::function<void(Misfits&)>> chosen;
  for_rows([&](const Sequence& s, const SavedForBackward& of, Index h, Index i, const Shifts& shifts) {
    if (n++ % step == 0 && std::isfinite(shifts[computed_o]))
      chosen.push_back([&s, &of, h, i, shifts](Misfits& misfits) { misfits.add(s, of, h, i, shifts); });
  });
  std::vector<Misfits> of_rows(chosen.size(), Misfits(attention, contract, *dq));
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t row = 0; row < chosen.size(); ++row) chosen[row](of_rows[row]);
  Misfits misfits(attention, contract, *dq);
  for (const Misfits& of_row : of_rows) misfits.add(of_row);
  const std::optional<DeltaOf> best = misfits.best();
  // Without a replay of o it is not known well enough what it was before its store.
  if (!best || (best == computed_o && !replay)) return;
  for_rows([&](const Sequence&, SavedForBackward& of, Index h, Index i, const Shifts& shifts) {
    of.delta_shift(h, i) = shifts[*best];
  });
}

}  // namespace attest
