// Chooses among the instruction set levels of the vector kernels.
#include "verify/bounds/vector_kernels.hpp"

namespace attest::bounds {

#if defined(__x86_64__)
namespace v2 {
extern const VectorKernels kernels;
}
namespace v3 {
extern const VectorKernels kernels;
}
namespace v4 {
extern const VectorKernels kernels;
}

std::span<const VectorKernels* const> available_vector_kernels() {
  static const VectorKernels* const levels[] = {&v2::kernels, &v3::kernels, &v4::kernels};
  static const std::size_t count = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4")) return std::size_t{3};
    return __builtin_cpu_supports("x86-64-v3") ? std::size_t{2} : std::size_t{1};
  }();
  return {levels, count};
}
#else
namespace portable {
extern const VectorKernels kernels;
}

std::span<const VectorKernels* const> available_vector_kernels() {
  static const VectorKernels* const levels[] = {&portable::kernels};
  return levels;
}
#endif

const VectorKernels& vector_kernels() {
  static const VectorKernels& fastest = *available_vector_kernels().back();
  return fastest;
}

}  // namespace attest::bounds
