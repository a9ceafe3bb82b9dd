// Double-double values in place of those in double.
#include "verify/ops/attention/precise.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/array.hpp"
#include "tiled/precise_attention.hpp"
#include "verify/bounds/arithmetic.hpp"
#include "verify/recheck.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr double noticeable = 0x1p-10;  // of a bound
constexpr double covered = 0x1p-900;    // products far below have lost low parts

template <int Rank>
struct Wide {
  Array<double, Rank> hi, lo, error;

  explicit Wide(typename Array<double, Rank>::Extents extents) : hi(extents), lo(extents), error(extents) {}
  tiled::WideView<Rank> view() { return {hi.view(), lo.view()}; }
};

/// value is that of element `at` in 64 bits, off by error at most.
void sharpen(Expected& e, Index at, long double value, double error) {
  const double nearest = static_cast<double>(value), before = e.value[at];
  if (!(std::max(std::abs(nearest), error) >= covered && std::isfinite(nearest) && std::isfinite(before)))
    return;
  error += 0x1p-53 * std::abs(nearest);
  if (!(error < e.value_error[at])) return;
  if (!(std::abs(nearest - before) <= error + e.value_error[at])) {
    throw InternalError("the engine's value of out/" + e.output + " at flat index " + std::to_string(at) +
                        " is " + exact_text(before) + ", in double-double arithmetic " + exact_text(nearest));
  }
  e.value[at] = nearest;
  e.value_error[at] = error;
}

/// places: where rows from first_row on lie.
void sharpen(Expected& e, const Wide<3>& values, const View<double, 3>& places, Index first_row = 0) {
  for (Index h = 0; h < places.extent(0); ++h) {
    for (Index i = 0; i < places.extent(1); ++i) {
      const Index row = first_row + i;
      for (Index d = 0; d < places.extent(2); ++d) {
        sharpen(e, &places(h, i, d) - e.value.data(),
                static_cast<long double>(values.hi(h, row, d)) + values.lo(h, row, d),
                values.error(h, row, d));
      }
    }
  }
}

}  // namespace

bool needs_precise_values(const AttentionCase& attention, const Contract& contract) {
  const auto is_whole = [](const Sequence& s) { return !s.in.row && !s.in.key; };
  const auto counts = [&](const Sequence& s) {
    return bounds::Arithmetic(contract).reference_share(s.in.qk_width(), s.in.keys()) > noticeable;
  };
  return std::ranges::all_of(attention.sequences, is_whole) &&
         std::ranges::any_of(attention.sequences, counts);
}

void sharpen_forward(const AttentionCase& attention, std::vector<Expected>& expected) {
  for (Expected& e : expected) e.double_error = e.value_error;
  for (const Sequence& s : attention.sequences) {
    const Index heads = s.in.q_heads();
    Wide<3> o({heads, s.queries, s.in.v_width()});
    Wide<2> lse({heads, s.queries}), m({heads, s.queries}), l({heads, s.queries});
    const tiled::PreciseOutputs out{o.view(), lse.view(),     m.view(),
                                    l.view(), o.error.view(), lse.error.view()};
    tiled::precise_attention_forward(attention.spec, {&s.in, 1}, {&out, 1});
    for (Expected& e : expected) {
      double* const data = e.value.data();
      if (e.output == "o") sharpen(e, o, attention.like_o(data, s));
      const Wide<2>* const of_rows = e.output == "lse" ? &lse
                                     : e.output == "m" ? &m
                                     : e.output == "l" ? &l
                                                       : nullptr;
      if (!of_rows) continue;
      const View<double, 3> places = attention.like_rows(data, *e.dumped, s);
      const double unit = of_rows == &lse ? attention.lse_unit : 1;
      const long double exact_unit = unit == 1 ? 1 : std::numbers::log2e_v<long double>;
      for (Index h = 0; h < heads; ++h) {
        for (Index i = 0; i < s.queries; ++i) {
          const long double value = static_cast<long double>(of_rows->hi(h, i)) + of_rows->lo(h, i);
          const double row_error = lse.error(h, i);
          const double error = of_rows == &l ? 2 * row_error * of_rows->hi(h, i) : row_error * unit;
          for (Index copy = 0; copy < places.extent(2); ++copy)
            sharpen(e, &places(h, i, copy) - data, value * exact_unit, error);
        }
      }
    }
  }
}

void sharpen_gradients(const AttentionCase& attention, const std::vector<SavedForBackward>& saved,
                       std::vector<Expected>& expected) {
  for (Expected& e : expected) {
    if (e.output.starts_with('d')) e.double_error = e.value_error;
  }
  for (std::size_t n = 0; n < attention.sequences.size(); ++n) {
    const Sequence& s = attention.sequences[n];
    const ref::AttentionSaved given = saved[n].for_ref();
    Wide<3> dq({s.in.q_heads(), s.queries, s.in.qk_width()});
    Wide<3> dk({s.in.kv_heads(), s.in.keys(), s.in.qk_width()});
    Wide<3> dv({s.in.kv_heads(), s.in.keys(), s.in.v_width()});
    tiled::PreciseGradients out{};
    out.dq = dq.view(), out.dk = dk.view(), out.dv = dv.view();
    out.dq_error = dq.error.view(), out.dk_error = dk.error.view(), out.dv_error = dv.error.view();
    const tiled::PreciseSaved in{given.o, {}, given.lse, {}, given.d_o};
    tiled::precise_attention_backward(attention.spec, {&s.in_backward, 1}, {&in, 1}, {&out, 1});
    for (Expected& e : expected) {
      double* const data = e.value.data();
      if (e.output == "dq") sharpen(e, dq, attention.like_q(data, s));
      if (e.output == "dk") sharpen(e, dk, attention.like_k(data, s), s.in.past);
      if (e.output == "dv") sharpen(e, dv, attention.like_v(data, s), s.in.past);
    }
  }
}

}  // namespace attest
