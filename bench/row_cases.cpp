// RMSNorm and RoPE on 64 MiB, beside a copy of as much.
#include "bench/cases.hpp"
#include "core/array.hpp"
#include "tiled/rms_norm.hpp"
#include "tiled/rope.hpp"

namespace attest::bench {
namespace {

constexpr Index copied_bytes = Index{64} << 20;

/// 64 MiB that are in memory already.
Array<float, 1> filled() {
  Array<float, 1> x({copied_bytes / 4});
  for (Index n = 0; n < x.size(); ++n) x(n) = static_cast<float>(n % 251) / 128 - 1;
  return x;
}

struct RowProblem {
  static constexpr Index count = copied_bytes / 4, rows = 4096, width = 4096;
  static constexpr Index heads = 32, positions = 4096, head_width = 128;

  Array<float, 1> x = filled(), dy = filled(), y = filled(), weight{{width}, 1}, rstd{{rows}, 1},
                  dweight{{width}};
  Array<float, 2> cos{{positions, head_width / 2}, 0.6f}, sin{{positions, head_width / 2}, 0.8f};

  static View<float, 2> matrix(Array<float, 1>& tensor) { return {tensor.data(), {rows, width}}; }
  static View<float, 3> in_heads(Array<float, 1>& tensor) {
    return {tensor.data(), {heads, positions, head_width}};
  }
  void norm_forward() {
    tiled::rms_norm_forward<float>({false, 1e-6, 0, {}}, {matrix(x), weight.view()},
                                   {matrix(y), rstd.view()});
  }
  void norm_backward() {
    tiled::rms_norm_backward<float>({false, 1e-6, 0, {}}, {matrix(x), weight.view()}, matrix(dy), rstd.view(),
                                    {matrix(y), dweight.view()});
  }
  void turn(RopeStyle style, bool is_backward) {
    (is_backward ? tiled::rope_backward<float>
                 : tiled::rope_forward<float>)({style, head_width}, in_heads(x), cos.view(), sin.view(),
                                               in_heads(y), tiled::fastest_level());
  }
  double copy_share(int thread, int threads) {
    const Index part = count / threads / 64 * 64;
    tiled::row_kernels_for<float>(tiled::fastest_level())
        .copy(x.data() + thread * part, y.data() + thread * part, part);
    return static_cast<double>(2 * 4 * part);
  }
};

}  // namespace

void add_row_cases(const std::vector<int>& threads_of_cases, const std::string& only, Cases& out) {
  std::shared_ptr<RowProblem> problem;
  for (const int threads : threads_of_cases) {
    std::shared_ptr<Probe> probe;
    const auto add = [&](const std::string& what, const std::string& shape, int tensors,
                         const std::function<void(RowProblem&)>& call) {
      Case x{"fp32",  what,  short_name(tiled::fastest_level()),
             threads, shape, static_cast<double>(tensors * copied_bytes),
             {},      {}};
      if (x.name().find(only) == std::string::npos) return;
      if (!problem) out.kept.push_back(problem = std::make_shared<RowProblem>());
      if (!probe) {
        const auto copy = [threads, &own = *problem](int thread) { return own.copy_share(thread, threads); };
        out.kept.push_back(probe = std::make_shared<Probe>(Probe{copy, threads, 0.9, "byte"}));
      }
      x.call = [call, &own = *problem] { call(own); };
      x.probe = probe.get();
      out.cases.push_back(std::move(x));
    };
    add("forward", "RMSNorm 4096x4096", 2, [](RowProblem& x) { x.norm_forward(); });
    add("backward", "RMSNorm 4096x4096", 3, [](RowProblem& x) { x.norm_backward(); });
    for (const RopeStyle style : {RopeStyle::half, RopeStyle::interleaved}) {
      const std::string shape =
          std::string("RoPE 1x32x4096x128 ") + (style == RopeStyle::half ? "half" : "interleaved");
      add("forward", shape, 2, [style](RowProblem& x) { x.turn(style, false); });
      add("backward", shape, 2, [style](RowProblem& x) { x.turn(style, true); });
    }
  }
}

}  // namespace attest::bench
