// Distributes the backward pass of a batch of sequences over threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/array.hpp"
#include "tiled/heads.hpp"

namespace attest::tiled {
namespace {

/// Tiles of rows of one key/value head that make a part worth its own dk and dv: a thousand rows or so.
constexpr Index tiles_of_a_part = 6, most_parts = 16;

/// One key/value head of a sequence, its tiles of query rows dealt out to parts.
template <class Real>
struct Group {
  const Inputs<Real>* in;
  const Saved<Real>* saved;
  const Gradients<Real>* out;
  View<Real, 2> delta;
  Index g, parts;
};

template <class Real>
class Backward {
 public:
  Backward(const AttentionSpec& spec, const Kernels<Real>& kernels) : spec_(spec), kernels_(kernels) {}

  /// The tiles of one part, in a fixed order. They are dealt to and fro: the later, the longer, if causal.
  void run(const Group<Real>& x, Index part, Real* dk, Real* dv, Real* scratch) const {
    const Index heads = x.in->q.extent(0) / x.in->k.extent(0), queries = x.in->q.extent(1);
    Index n = 0;
    for (Index h = x.g * heads; h < (x.g + 1) * heads; ++h) {
      const Head<Real> head = query_head(spec_, *x.in, h);
      const BackwardHead<Real> tensors{matrix(x.saved->o, h),   matrix(x.saved->d_o, h),
                                       column(x.saved->lse, h), matrix(x.out->dq, h),
                                       matrix(x.out->ds, h),    column(x.delta, h)};
      const RowTiles tiles = kernels_.backward_tiles(head);
      for (Index t = 0; t < tiles.count && queries > 0; ++t) {
        const Index turn = n++ % (2 * x.parts);
        if (std::min(turn, 2 * x.parts - 1 - turn) != part) continue;
        const Index first = t * tiles.rows, rows = t + 1 < tiles.count ? tiles.rows : queries - first;
        kernels_.backward(head, tensors, first, rows, dk, dv, scratch);
      }
    }
  }

  /// Adds the sums of a part to those of the parts before it, in the tensors themselves.
  void add(const Group<Real>& x, Index part, const Real* dk, const Real* dv) const {
    const Index keys = x.in->k.extent(1);
    const bool is_last = part + 1 == x.parts;
    const Real scale = is_last ? static_cast<Real>(spec_.scale) : Real{1};
    if (x.out->dk) kernels_.add_part(dk, keys, part == 0, scale, matrix(x.out->dk, x.g));
    if (x.out->dv) kernels_.add_part(dv, keys, part == 0, Real{1}, matrix(x.out->dv, x.g));
  }

 private:
  const AttentionSpec& spec_;
  const Kernels<Real>& kernels_;
};

template <class Real>
void write_dsink(const Inputs<Real>& in, const Saved<Real>& saved, View<Real, 2> delta, View<Real, 1> dsink) {
  for (Index h = 0; h < in.q.extent(0); ++h) {
    double sum = 0;
    for (Index i = 0; i < in.q.extent(1); ++i) {
      if (saved.lse(h, i) == -std::numeric_limits<Real>::infinity()) continue;  // an empty row
      const double p = std::exp(static_cast<double>(in.sink(h)) - static_cast<double>(saved.lse(h, i)));
      sum -= p * static_cast<double>(delta(h, i));
    }
    dsink(h) = static_cast<Real>(sum);
  }
}

}  // namespace

template <class Real>
void attention_backward(const AttentionSpec& spec, std::span<const Inputs<Real>> in,
                        std::span<const Saved<Real>> saved, std::span<const Gradients<Real>> out,
                        Level level) {
  assert(in.size() == saved.size() && in.size() == out.size());
  const Kernels<Real>& kernels = kernels_for<Real>(level);
  const Backward<Real> backward(spec, kernels);

  std::vector<Group<Real>> groups;
  std::vector<Array<Real, 2>> deltas;
  deltas.reserve(in.size());
  struct Task {
    std::size_t group;
    Index part;
  };
  std::vector<Task> tasks;
  Index scratch = 1, largest_sum = 1;
  const auto rows_of = [](Index keys, Index columns) { return (keys * columns + 15) / 16 * 16; };
  for (std::size_t b = 0; b < in.size(); ++b) {
    const Index heads = in[b].q.extent(0), kv_heads = in[b].k.extent(0), keys = in[b].k.extent(1);
    deltas.push_back(out[b].dsink ? Array<Real, 2>({heads, in[b].q.extent(1)}) : Array<Real, 2>{});
    if (heads == 0) continue;
    const Head<Real> head = query_head(spec, in[b], 0);
    const Index sum =
        rows_of(keys, kernels.padded_columns(head.k)) + rows_of(keys, kernels.padded_columns(head.v));
    const Index tiles = kernels.backward_tiles(head).count * (heads / kv_heads);
    const Index parts = std::clamp<Index>(tiles / tiles_of_a_part, 1, most_parts);
    scratch = std::max(scratch, kernels.backward_scratch(head));
    largest_sum = std::max(largest_sum, sum);
    for (Index g = 0; g < kv_heads; ++g) {
      groups.push_back({&in[b], &saved[b], &out[b], deltas[b].view(), g, parts});
      for (Index part = 0; part < parts; ++part) tasks.push_back({groups.size() - 1, part});
    }
  }

#pragma omp parallel
  {
    const Scratch<Real> own(scratch), sums(largest_sum);
#pragma omp for ordered schedule(dynamic, 1)
    for (std::size_t n = 0; n < tasks.size(); ++n) {
      const Group<Real>& x = groups[tasks[n].group];
      const Head<Real> head = query_head(spec, *x.in, 0);
      const Index dk_size = rows_of(head.keys, kernels.padded_columns(head.k));
      const Index dv_size = rows_of(head.keys, kernels.padded_columns(head.v));
      Real *const dk = sums.data(), *const dv = dk + dk_size;
      std::fill_n(dk, dk_size + dv_size, Real{0});
      backward.run(x, tasks[n].part, dk, dv, own.data());
#pragma omp ordered
      backward.add(x, tasks[n].part, dk, dv);
    }
  }

  for (std::size_t b = 0; b < in.size(); ++b) {
    if (out[b].dsink) write_dsink(in[b], saved[b], deltas[b].view(), out[b].dsink);
  }
}

template void attention_backward(const AttentionSpec&, std::span<const Inputs<float>>,
                                 std::span<const Saved<float>>, std::span<const Gradients<float>>, Level);
template void attention_backward(const AttentionSpec&, std::span<const Inputs<double>>,
                                 std::span<const Saved<double>>, std::span<const Gradients<double>>, Level);

}  // namespace attest::tiled
