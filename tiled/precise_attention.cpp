// Distributes double-double attention over threads.
#include "tiled/precise_attention.hpp"

#include <algorithm>
#include <vector>

#include "core/array.hpp"
#include "core/double_double.hpp"
#include "tiled/heads.hpp"

namespace attest::tiled {

#define ATTEST_TILED_DECLARE(level)                   \
  namespace level {                                   \
  extern const PreciseKernels* const precise_kernels; \
  }
ATTEST_TILED_DECLARE(v2)
ATTEST_TILED_DECLARE(v3)
ATTEST_TILED_DECLARE(v4)

const PreciseKernels& precise_kernels_for(Level level) {
  return *(level == Level::v2   ? v2::precise_kernels
           : level == Level::v3 ? v3::precise_kernels
                                : v4::precise_kernels);
}

namespace {

WideMatrix wide_matrix(const WideView<3>& x, Index h) {
  return {matrix(x.hi, h), matrix(x.lo, h)};
}
WideColumn wide_column(const WideView<2>& x, Index h) {
  return {column(x.hi, h), column(x.lo, h)};
}

/// Rows [first, first + rows) of queries of head h, or of keys of key/value head h, of sequence b.
struct Task {
  std::size_t b;
  Index h, first, rows;
};

void add_tasks(std::vector<Task>& tasks, std::size_t b, Index heads, Index rows, Index panel) {
  for (Index h = 0; h < heads; ++h) {
    for (Index last = rows; last > 0;) {  // the last rows of a causal head are the longest
      const Index first = (last - 1) / panel * panel;
      tasks.push_back({b, h, first, last - first});
      last = first;
    }
  }
}

/// Calls f(task, scratch) for all tasks, in threads of their own memory.
template <class F>
void for_all(const std::vector<Task>& tasks, Index scratch, const F& f) {
#pragma omp parallel
  {
    const Scratch<double> own(scratch);
#pragma omp for schedule(dynamic, 1)
    for (std::size_t n = 0; n < tasks.size(); ++n) f(tasks[n], own.data());
  }
}

Index scratch_of(const PreciseKernels& kernels, std::span<const AttentionInputs> in) {
  Index scratch = 1;
  for (const AttentionInputs& x : in) scratch = std::max(scratch, kernels.scratch(x.qk_width(), x.v_width()));
  return scratch;
}

/// What the passes over queries leave for the passes over keys, or for the sums of dsink.
struct Deltas {
  Array<double, 2> hi, lo, magnitude, sink_hi, sink_lo, sink_error;  // [Hq, Sq]

  explicit Deltas(const AttentionInputs& in)
      : hi({in.q_heads(), in.queries()}), lo(hi), magnitude(hi), sink_hi(hi), sink_lo(hi), sink_error(hi) {}
};

PreciseRows rows_of(const PreciseSaved& saved, Deltas& deltas, Index h) {
  return {matrix(saved.o, h),
          matrix(saved.o_lo, h),
          matrix(saved.d_o, h),
          column(saved.lse, h),
          column(saved.lse_lo, h),
          {column(deltas.hi.view(), h), column(deltas.lo.view(), h)},
          column(deltas.magnitude.view(), h)};
}

}  // namespace

void precise_attention_forward(const AttentionSpec& spec, std::span<const AttentionInputs> in,
                               std::span<const PreciseOutputs> out, Level level) {
  assert(in.size() == out.size());
  const PreciseKernels& kernels = precise_kernels_for(level);
  std::vector<Task> tasks;
  for (std::size_t b = 0; b < in.size(); ++b) {
    add_tasks(tasks, b, in[b].q_heads(), in[b].queries(), kernels.panel);
  }
  for_all(tasks, scratch_of(kernels, in), [&](const Task& task, double* scratch) {
    const PreciseOutputs& to = out[task.b];
    const PreciseForwardHead target{wide_matrix(to.o, task.h),  wide_column(to.lse, task.h),
                                    wide_column(to.m, task.h),  wide_column(to.l, task.h),
                                    matrix(to.o_error, task.h), column(to.row_error, task.h)};
    kernels.forward(query_head(spec, in[task.b], task.h), target, task.first, task.rows, scratch);
  });
}

void precise_attention_backward(const AttentionSpec& spec, std::span<const AttentionInputs> in,
                                std::span<const PreciseSaved> saved, std::span<const PreciseGradients> out,
                                Level level) {
  assert(in.size() == saved.size() && in.size() == out.size());
  const PreciseKernels& kernels = precise_kernels_for(level);
  const Index scratch = scratch_of(kernels, in);
  std::vector<Deltas> deltas(in.begin(), in.end());

  std::vector<Task> tasks;
  for (std::size_t b = 0; b < in.size(); ++b) {
    add_tasks(tasks, b, in[b].q_heads(), in[b].queries(), kernels.panel);
  }
  for_all(tasks, scratch, [&](const Task& task, double* own) {
    const PreciseGradients& to = out[task.b];
    Deltas& x = deltas[task.b];
    const PreciseQueryGradients target{wide_matrix(to.dq, task.h),
                                       wide_matrix(to.ds, task.h),
                                       matrix(to.dq_error, task.h),
                                       matrix(to.ds_error, task.h),
                                       {column(x.sink_hi.view(), task.h), column(x.sink_lo.view(), task.h)},
                                       column(x.sink_error.view(), task.h)};
    kernels.backward_queries(query_head(spec, in[task.b], task.h), rows_of(saved[task.b], x, task.h), target,
                             task.first, task.rows, own);
  });

  tasks.clear();
  for (std::size_t b = 0; b < in.size(); ++b) {
    const PreciseGradients& to = out[b];
    if (!to.dk.hi && !to.dk.lo && !to.dv.hi && !to.dv.lo) continue;
    add_tasks(tasks, b, in[b].kv_heads(), in[b].keys(), kernels.panel);
  }
  for_all(tasks, scratch, [&](const Task& task, double* own) {
    const PreciseGradients& to = out[task.b];
    const Index group = in[task.b].group();
    std::vector<Head<double>> heads;
    std::vector<PreciseRows> rows;
    for (Index h = task.h * group; h < (task.h + 1) * group; ++h) {
      heads.push_back(query_head(spec, in[task.b], h));
      rows.push_back(rows_of(saved[task.b], deltas[task.b], h));
    }
    const PreciseKeyGradients target{wide_matrix(to.dk, task.h), wide_matrix(to.dv, task.h),
                                     matrix(to.dk_error, task.h), matrix(to.dv_error, task.h)};
    kernels.backward_keys(heads.data(), rows.data(), group, target, task.first, task.rows, own);
  });

  for (std::size_t b = 0; b < in.size(); ++b) {
    if (!in[b].sink) continue;
    for (Index h = 0; h < in[b].q_heads(); ++h) {
      DoubleDouble sum;
      double error = 0;
      for (Index i = 0; i < in[b].queries(); ++i) {
        sum = sum + DoubleDouble(deltas[b].sink_hi(h, i), deltas[b].sink_lo(h, i));
        error += deltas[b].sink_error(h, i);
      }
      if (out[b].dsink.hi) out[b].dsink.hi(h) = sum.hi;
      if (out[b].dsink.lo) out[b].dsink.lo(h) = sum.lo;
      if (out[b].dsink_error) out[b].dsink_error(h) = error;
    }
  }
}

}  // namespace attest::tiled
