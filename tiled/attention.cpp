// Distributes the forward pass of a batch of sequences over threads.
#include "tiled/attention.hpp"

#include <algorithm>
#include <vector>

#include "tiled/heads.hpp"

namespace attest::tiled {
template <class Real>
void attention_forward(const AttentionSpec& spec, std::span<const Inputs<Real>> in,
                       std::span<const Outputs<Real>> out, Level level, Normalisation normalisation) {
  assert(in.size() == out.size());
  const Kernels<Real>& kernels = kernels_for<Real>(level);

  struct Task {
    std::size_t b;
    Index h;
    RowTask rows;
  };
  std::vector<Task> tasks;
  std::vector<std::vector<ForwardTensors<Real>>> parts(in.size());  // empty: written to `out` at once
  Index scratch = 1;
  for (std::size_t b = 0; b < in.size(); ++b) {
    const Index heads = in[b].q_heads(), queries = in[b].queries();
    if (heads == 0 || queries == 0) continue;
    const Head<Real> any_head = query_head(spec, in[b], 0);
    const Index count = kernels.forward_parts(any_head, heads);
    for (Index part = 0; count > 1 && part < count; ++part) parts[b].emplace_back(in[b]);
    const RowTiles tiles = kernels.forward_tiles(any_head);
    scratch = std::max(scratch, kernels.forward_scratch(any_head));
    for (Index h = 0; h < heads; ++h) {
      for (Index t = tiles.count - 1; t >= 0; --t) {  // the last rows of a causal head are the longest
        const Index first = t * tiles.rows;
        const Index rows = t + 1 < tiles.count ? tiles.rows : queries - first;
        for (Index part = 0; part < count; ++part) {
          tasks.push_back({b, h, {first, rows, part, count, normalisation}});
        }
      }
    }
  }

#pragma omp parallel
  {
    const Scratch<Real> own(scratch);
#pragma omp for schedule(dynamic, 1)
    for (std::size_t n = 0; n < tasks.size(); ++n) {
      const auto& [b, h, rows] = tasks[n];
      const Head<Real> head = head_of_part(query_head(spec, in[b], h), rows.part, rows.parts);
      const Outputs<Real> target = rows.parts == 1 ? out[b] : parts[b][rows.part].outputs();
      kernels.forward(head, forward_head(target, h), rows, own.data());
    }
  }

  for (std::size_t b = 0; b < in.size(); ++b) {
    if (parts[b].empty()) continue;
    const std::vector<Part<Real>> results = parts_of(parts[b]);
    for (Index h = 0; h < in[b].q_heads(); ++h) {
      for (Index i = 0; i < in[b].queries(); ++i) {
        if (merge_row<Real>(results, out[b], h, i) || !out[b].o) continue;
        kernels.write_empty_row(query_head(spec, in[b], h), forward_head(out[b], h), i);
      }
    }
  }
}

template void attention_forward(const AttentionSpec&, std::span<const Inputs<float>>,
                                std::span<const Outputs<float>>, Level, Normalisation);
template void attention_forward(const AttentionSpec&, std::span<const Inputs<double>>,
                                std::span<const Outputs<double>>, Level, Normalisation);

}  // namespace attest::tiled
