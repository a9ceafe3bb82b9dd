// The functions of one instruction set level. This file is compiled once for each: see simd.hpp.
#include "tiled/backward.hpp"
#include "tiled/forward.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {
namespace {

template <class Real, Vector<Real> (*function)(Vector<Real>)>
void for_all(const Real* x, Real* y, Index n) {
  for (Index i = 0; i < n; i += lanes<Real>) store(y + i, function(load(x + i)));
}

/// As many independent chains as hide the latency of a fused multiply-add on two ports.
template <class Real>
Index multiply_add(Index steps) {
  constexpr int chains = vector_registers == 32 ? 24 : 12;
  Vector<Real> sum[chains], factor = broadcast(Real(0.999)), addend = broadcast(Real(1e-6));
  for (int n = 0; n < chains; ++n) sum[n] = broadcast(static_cast<Real>(n));
  for (Index k = 0; k < steps; ++k) {
#pragma GCC unroll 24
    for (int n = 0; n < chains; ++n) sum[n] = sum[n] * factor + addend;
    asm volatile("" : "+v"(factor));
  }
  for (int n = 1; n < chains; ++n) sum[0] += sum[n];
  asm volatile("" ::"v"(sum[0]));
  return chains * lanes<Real>;
}

template <class Real>
constexpr Kernels<Real> kernels = {
    forward_tiles<Real>,       forward_scratch<Real>, forward_parts<Real>,       native_forward<Real>,
    write_empty_row<Real>,     backward_tiles<Real>,  backward_scratch<Real>,    native_backward<Real>,
    padded_columns<Real>,      add_part<Real>,        for_all<Real, exp2<Real>>, for_all<Real, log2<Real>>,
    for_all<Real, tanh<Real>>, multiply_add<Real>,
};

}  // namespace

extern const Kernels<float>* const float_kernels;
extern const Kernels<double>* const double_kernels;
constinit const Kernels<float>* const float_kernels = &kernels<float>;
constinit const Kernels<double>* const double_kernels = &kernels<double>;

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
