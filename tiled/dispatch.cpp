// Chooses among the instruction set levels at run time.
#include "tiled/dispatch.hpp"

namespace attest::tiled {

#define ATTEST_TILED_DECLARE(level)                          \
  namespace level {                                          \
  extern const Kernels<float>* const float_kernels;          \
  extern const Kernels<double>* const double_kernels;        \
  extern const RowKernels<float>* const float_row_kernels;   \
  extern const RowKernels<double>* const double_row_kernels; \
  }
ATTEST_TILED_DECLARE(v2)
ATTEST_TILED_DECLARE(v3)
ATTEST_TILED_DECLARE(v4)

std::span<const Level> available_levels() {
  static const Level levels[] = {Level::v2, Level::v3, Level::v4};
  static const std::size_t count = [] {
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    return std::size_t{1} + v3 + v4;
  }();
  return {levels, count};
}

const char* name_of(Level level) {
  return level == Level::v2 ? "x86-64-v2" : level == Level::v3 ? "x86-64-v3" : "x86-64-v4";
}

template <>
const Kernels<float>& kernels_for(Level level) {
  return *(level == Level::v2   ? v2::float_kernels
           : level == Level::v3 ? v3::float_kernels
                                : v4::float_kernels);
}
template <>
const Kernels<double>& kernels_for(Level level) {
  return *(level == Level::v2   ? v2::double_kernels
           : level == Level::v3 ? v3::double_kernels
                                : v4::double_kernels);
}
template <>
const RowKernels<float>& row_kernels_for(Level level) {
  return *(level == Level::v2   ? v2::float_row_kernels
           : level == Level::v3 ? v3::float_row_kernels
                                : v4::float_row_kernels);
}
template <>
const RowKernels<double>& row_kernels_for(Level level) {
  return *(level == Level::v2   ? v2::double_row_kernels
           : level == Level::v3 ? v3::double_row_kernels
                                : v4::double_row_kernels);
}

}  // namespace attest::tiled
