// lse and delta of the backward pass that are other numbers, and operands whose tiles are transposed.
#include <algorithm>
#include <memory>
#include <numbers>
#include <utility>

#include "verify/ops/attention/gradient_terms.hpp"

namespace attest {
namespace {

class Stages {
 public:
  explicit Stages(const BackwardPass& pass) : pass_(pass) {}
  std::vector<GradientFault> all;

  void of_transposed_tiles();
  void of_numbers();
  void of_short_delta();

 private:
  bool has_ds() const { return pass_.output() != "dv"; }
  template <class Change>
  void add(const std::string& name, Change change) {
    all.push_back({name, std::move(change)});
  }

  const BackwardPass& pass_;
};

/// Square tiles of one operand with rows for columns, and fragments of dS with blocks exchanged.
void Stages::of_transposed_tiles() {
  const BackwardPass* const b = &pass_;
  for (const Index tile : {64, 128, 32, 16, 8}) {
    const std::string of =
        " with tiles of " + std::to_string(tile) + " x " + std::to_string(tile) + " transposed";
    const auto turned = [tile](Index rows, Index columns, Index i, Index d, auto element) {
      const Index top = i / tile * tile, left = d / tile * tile;
      const bool is_whole = top + tile <= rows && left + tile <= columns;
      return is_whole ? element(top + d - left, left + i - top) : element(i, d);
    };
    if (has_ds() && tile <= pass_.in(0).v_width()) {
      const auto product = [=](const GradientTerm& t, bool turns_v) {
        const AttentionInputs& in = b->in(t.row.n);
        const Index width = in.v_width();
        double sum = 0;
        for (Index e = 0; e < width; ++e) {
          const double from_v = turns_v ? turned(in.keys(), width, t.key.j, e,
                                                 [&](Index j, Index c) { return in.v(t.key.g, j, c); })
                                        : in.v(t.key.g, t.key.j, e);
          const double from_d_o =
              turns_v ? b->d_o(t.row)[e] : turned(in.queries(), width, t.row.i, e, [&](Index i, Index c) {
                return b->d_o({t.row.n, t.row.h, i})[c];
              });
          sum += from_v * from_d_o;
        }
        return sum;
      };
      add("in/do in dP" + of, [=](GradientTerm& t) { t.dp = product(t, false); });
      add("in/v in dP" + of, [=](GradientTerm& t) { t.dp = product(t, true); });
    }
    if (tile <= pass_.in(0).qk_width()) {
      const auto product = [=](const GradientTerm& t, bool turns_k) {
        const AttentionInputs& in = b->in(t.row.n);
        const Index width = in.qk_width();
        double sum = 0;
        for (Index d = 0; d < width; ++d) {
          const double from_k = turns_k ? turned(in.keys(), width, t.key.j, d,
                                                 [&](Index j, Index c) { return in.k(t.key.g, j, c); })
                                        : in.k(t.key.g, t.key.j, d);
          const double from_q = turns_k ? in.q(t.row.h, t.row.i, d)
                                        : turned(in.queries(), width, t.row.i, d,
                                                 [&](Index i, Index c) { return in.q(t.row.h, i, c); });
          sum += from_k * from_q;
        }
        return sum;
      };
      add("in/q in its product with k" + of, [=](GradientTerm& t) { t.product = product(t, false); });
      add("in/k in its product with q" + of, [=](GradientTerm& t) { t.product = product(t, true); });
    }
    const auto weight_at = [b](GradientTerm& t, Index i, Index j) {
      if (i >= b->in(t.row.n).queries() || j >= b->in(t.row.n).keys()) return;
      const GradientTerm own = t;
      t = b->term({own.row.n, own.row.h, i}, j);
      t.row = own.row, t.key = own.key, t.vector = own.vector;
    };
    const std::string ds = has_ds() ? "dS" : "P";
    add(ds + of, [=](GradientTerm& t) {
      const Index i = t.row.i, j = t.key.j, top = i / tile * tile, left = j / tile * tile;
      weight_at(t, top + j - left, left + i - top);
    });
    if (tile != 16) continue;
    add(ds + " with blocks of 8 x 8 exchanged across the diagonal of 16 x 16", [=](GradientTerm& t) {
      const Index i = t.row.i, j = t.key.j;
      if ((i / 8 + j / 8) % 2 != 0)
        weight_at(t, i / 8 % 2 == 0 ? i + 8 : i - 8, j / 8 % 2 == 0 ? j + 8 : j - 8);
    });
  }
}

/// lse and delta that are other numbers.
void Stages::of_numbers() {
  const BackwardPass* const b = &pass_;
  const auto with_lse = [&](const std::string& name, double factor) {
    add(name, [factor](GradientTerm& t) { t.lse *= factor; });
  };
  with_lse("lse of base 2 read as natural", std::numbers::log2e);
  with_lse("a natural lse read as of base 2", std::numbers::ln2);
  add("exp2 for exp in P", [](GradientTerm& t) { t.exponent = std::numbers::ln2; });
  add("exp for exp2 in P", [](GradientTerm& t) { t.exponent = std::numbers::log2e; });
  if (!has_ds()) return;
  add("delta = rowsum(do o) missing in dS", [](GradientTerm& t) { t.delta = 0; });
  add("delta of the other sign", [](GradientTerm& t) { t.delta *= -1; });
  add("delta counted twice", [](GradientTerm& t) { t.delta *= 2; });
  add("delta multiplied by log2(e)", [](GradientTerm& t) { t.delta *= std::numbers::log2e; });
  add("delta multiplied by ln(2)", [](GradientTerm& t) { t.delta *= std::numbers::ln2; });
  add("delta not multiplied by P", [b](GradientTerm& t) {
    const double p = b->p(t);
    t.delta = p > 0 ? t.delta / p : 0;
  });
  const Index width = pass_.in(0).v_width();
  for (Index columns = 8; columns < width; columns += 8) {
    add("delta of the first " + std::to_string(columns) + " columns",
        [=](GradientTerm& t) { t.delta = b->delta_of_columns(t.row, columns); });
    add("delta without the first " + std::to_string(columns) + " columns",
        [=](GradientTerm& t) { t.delta -= b->delta_of_columns(t.row, columns); });
  }
}

/// delta is the sum of P dP over keys, too: that of a kernel that forms it so may lack the last tile.
void Stages::of_short_delta() {
  constexpr double most_products = 1 << 28;
  constexpr Index tiles[] = {64, 128, 32, 16};
  double products = 0;
  for (std::size_t n = 0; n < pass_.sequences(); ++n) {
    const AttentionInputs& in = pass_.in(n);
    products += static_cast<double>(in.q_heads() * in.queries()) *
                static_cast<double>(std::min<Index>(in.keys(), tiles[1]) * (in.qk_width() + in.v_width()));
  }
  if (!has_ds() || products > most_products) return;
  using Sums = std::vector<Array<double, 2>>;  // of a sequence: [Hq, Sq]
  for (const Index tile : tiles) {
    const auto lost = std::make_shared<Sums>();
    bool is_any = false;
    for (std::size_t n = 0; n < pass_.sequences(); ++n) {
      const AttentionInputs& in = pass_.in(n);
      const Index keys = pass_.keys(n), first = keys / tile * tile;
      Array<double, 2> sums({in.q_heads(), in.queries()});
      for (Index h = 0; h < in.q_heads(); ++h) {
        for (Index i = 0; i < in.queries(); ++i) {
          for (Index j = first; j < keys; ++j) {
            const GradientTerm t = pass_.term({n, h, i}, j);
            sums(h, i) += pass_.p(t) * t.dp;
            is_any |= true;
          }
        }
      }
      lost->push_back(std::move(sums));
    }
    if (!is_any) continue;
    add("delta, as a sum over keys, without the last tile of " + std::to_string(tile) + ", which is not full",
        [lost](GradientTerm& t) { t.delta -= (*lost)[t.row.n](t.row.h, t.row.i); });
  }
}

}  // namespace

std::vector<GradientFault> wrong_stages_of_gradients(const BackwardPass& pass) {
  Stages stages(pass);
  stages.of_numbers();
  stages.of_short_delta();
  stages.of_transposed_tiles();
  return std::move(stages.all);
}

}  // namespace attest
