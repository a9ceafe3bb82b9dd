// Distributes the forward pass of a batch of sequences over threads.
#include "tiled/attention.hpp"

#include <algorithm>
#include <vector>

#include "tiled/heads.hpp"

namespace attest::tiled {
Inputs<double> inputs_of(const AttentionInputs& in) {
  return {in.q, in.k, in.v, in.mask, in.bias, in.alibi_slopes, in.sink, in.past};
}

template <class Real>
void attention_forward(const AttentionSpec& spec, std::span<const Inputs<Real>> in,
                       std::span<const Outputs<Real>> out, Level level) {
  assert(in.size() == out.size());
  const Kernels<Real>& kernels = kernels_for<Real>(level);

  struct Task {
    const Inputs<Real>* in;
    const Outputs<Real>* out;
    Index h, first_row, rows;
  };
  std::vector<Task> tasks;
  Index scratch = 1;
  for (std::size_t b = 0; b < in.size(); ++b) {
    const Index heads = in[b].q.extent(0), queries = in[b].q.extent(1);
    if (heads == 0 || queries == 0) continue;
    const Head<Real> any_head = query_head(spec, in[b], 0);
    const RowTiles tiles = kernels.forward_tiles(any_head);
    scratch = std::max(scratch, kernels.forward_scratch(any_head));
    for (Index h = 0; h < heads; ++h) {
      for (Index t = tiles.count - 1; t >= 0; --t) {  // the last rows of a causal head are the longest
        const Index first = t * tiles.rows;
        const Index rows = t + 1 < tiles.count ? tiles.rows : queries - first;
        tasks.push_back({&in[b], &out[b], h, first, rows});
      }
    }
  }

#pragma omp parallel
  {
    const Scratch<Real> own(scratch);
#pragma omp for schedule(dynamic, 1)
    for (std::size_t n = 0; n < tasks.size(); ++n) {
      const Task& task = tasks[n];
      const Head<Real> head = query_head(spec, *task.in, task.h);
      const ForwardHead<Real> target{matrix(task.out->o, task.h), column(task.out->lse, task.h),
                                     column(task.out->m, task.h), column(task.out->l, task.h)};
      kernels.forward(head, target, task.first_row, task.rows, own.data());
    }
  }
}

template void attention_forward(const AttentionSpec&, std::span<const Inputs<float>>,
                                std::span<const Outputs<float>>, Level);
template void attention_forward(const AttentionSpec&, std::span<const Inputs<double>>,
                                std::span<const Outputs<double>>, Level);

}  // namespace attest::tiled
