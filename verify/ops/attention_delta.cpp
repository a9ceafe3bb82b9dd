// Whether a kernel formed delta before it stored o or after.
#include "verify/ops/attention_delta.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "ref/attention.hpp"
#include "verify/bounds/arithmetic.hpp"
#include "verify/bounds/storage_grid.hpp"
#include "verify/replay_statistics.hpp"

namespace attest {
namespace {

constexpr Index rows_to_choose_from = 64;

/// What do . o is more than that of the stored o, if the kernel forms it before.
double shift_before_store(const AttentionCase& attention, const Sequence& s, const SavedForBackward& saved,
                          const Expected& o, const Replay* replay, Index h, Index i) {
  const View<const double, 3> place = attention.like_o(o.value.data(), s);
  double shift = 0;
  for (Index e = 0; e < place.extent(2); ++e) {
    const Index at = &place(h, i, e) - o.value.data();
    shift += saved.d_o(h, i, e) * (o.value[at] + (replay ? replay->shift[at] : 0) - saved.o(h, i, e));
  }
  return shift;
}

/// How well each way to store dS, with delta from before and from after the store of o, explains a row of dq.
class Misfits {
 public:
  Misfits(const AttentionCase& attention, const Contract& contract, const Tensor& dq)
      : attention_(attention), grid_(contract.p_dtype), dq_(dq) {}

  void add(const Sequence& s, const SavedForBackward& saved, Index h, Index i, double shift_before) {
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
        const double x = ds[j] / p - (way >= ways / 2 ? shift_before : 0);
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

  enum class Best { none, after_store, before_store };
  Best best() const {
    const auto way = std::ranges::min_element(of_way_) - of_way_.begin();
    if (!(of_way_[way] < of_none_)) return Best::none;
    return way < static_cast<Index>(ways / 2) ? Best::after_store : Best::before_store;
  }

 private:
  // From the computed or the stored weight, in units of 1 or of the scale; then the same before the store of
  // o.
  static constexpr std::size_t ways = 8;

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
          f(s, saved[at], h, i, shift_before_store(attention, s, saved[at], o, replay, h, i));
      }
    }
  };

  std::vector<std::function<void(Misfits&)>> chosen;
  for_rows([&](const Sequence& s, const SavedForBackward& of, Index h, Index i, double before) {
    if (n++ % step == 0 && std::isfinite(before))
      chosen.push_back([&s, &of, h, i, before](Misfits& misfits) { misfits.add(s, of, h, i, before); });
  });
  std::vector<Misfits> of_rows(chosen.size(), Misfits(attention, contract, *dq));
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t row = 0; row < chosen.size(); ++row) chosen[row](of_rows[row]);
  Misfits misfits(attention, contract, *dq);
  for (const Misfits& of_row : of_rows) misfits.add(of_row);
  const Misfits::Best best = misfits.best();
  // Without a replay of o it is not known well enough what it was before its store.
  if (best == Misfits::Best::none || (best == Misfits::Best::before_store && !replay)) return;
  for_rows([&](const Sequence&, SavedForBackward& of, Index h, Index i, double before) {
    of.delta_shift(h, i) = best == Misfits::Best::before_store ? before : 0;
  });
}

}  // namespace attest
