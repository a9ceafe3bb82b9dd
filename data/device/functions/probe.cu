// How far approximations of an NVIDIA GPU are off. tanh.approx.f32 and ex2.approx.ftz.f32: the largest relative error
// over every float of each binade; __sinf and __cosf: the largest absolute error, likewise; __powf: the largest relative
// error over the inverse frequencies of rotary embeddings.
//
//   nvcc -arch=native -o probe probe.cu && ./probe > h200.txt
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

constexpr int floats_per_binade = 1 << 23, threads = 256;

enum Function { tanh_approx, ex2_approx, fast_sin, fast_cos };

__device__ void keep_largest(unsigned* largest, double error) {
  // The bits of floats that are not negative order as the numbers do.
  atomicMax(largest, __float_as_uint(static_cast<float>(fabs(error))));
}

/// The errors of 2^exponent (1 + n 2^-23), with that sign, for all n.
__global__ void probe(Function function, int exponent, float sign, unsigned* largest) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  const float x = sign * ldexpf(1 + n * 0x1p-23f, exponent);
  float y;
  if (function == tanh_approx) {
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    keep_largest(largest, y / tanh(static_cast<double>(x)) - 1);
  } else if (function == ex2_approx) {
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    keep_largest(largest, y / exp2(static_cast<double>(x)) - 1);
  } else {
    keep_largest(largest, function == fast_sin ? __sinf(x) - sin(static_cast<double>(x))
                                               : __cosf(x) - cos(static_cast<double>(x)));
  }
}

/// Of inverse frequency k of `pairs` as __powf(1 / theta, k / pairs).
__global__ void probe_powers(float theta, int pairs, unsigned* largest) {
  const int k = threadIdx.x;
  const float base = 1 / theta, exponent = static_cast<float>(k) / static_cast<float>(pairs);
  const double exact = pow(static_cast<double>(theta), -static_cast<double>(k) / pairs);
  if (k < pairs) keep_largest(largest, __powf(base, exponent) / exact - 1);
}

/// What `launch`, given where to keep it, finds to be the largest.
template <typename Launch>
float largest_of(Launch launch) {
  unsigned* device = nullptr;
  cudaMalloc(&device, sizeof *device);
  cudaMemset(device, 0, sizeof *device);
  launch(device);
  unsigned bits = 0;
  cudaMemcpy(&bits, device, sizeof bits, cudaMemcpyDeviceToHost);
  cudaFree(device);
  float error;
  std::memcpy(&error, &bits, sizeof error);
  return error;
}

float largest_error(Function function, int exponent, float sign) {
  return largest_of(
      [&](unsigned* error) { probe<<<floats_per_binade / threads, threads>>>(function, exponent, sign, error); });
}

int main() {
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) return 1;
  std::printf("device %s\n", device.name);
  // Below 2^-24 tanh x is x to the last bit; beyond 2^5 it is 1.
  float largest = 0;
  for (int exponent = -24; exponent <= 5; ++exponent) {
    const float error =
        std::max(largest_error(tanh_approx, exponent, 1), largest_error(tanh_approx, exponent, -1));
    std::printf("tanh.approx.f32      2^%-3d <= |x| < 2^%-3d  %.3g\n", exponent, exponent + 1, error);
    largest = std::max(largest, error);
  }
  std::printf("tanh.approx.f32      largest                %.3g = 2^%.2f\n", largest, std::log2(largest));
  // Of exponents in a softmax, which are not positive; below -126 results may be 0.
  largest = 0;
  for (int exponent = -24; exponent <= 5; ++exponent) {
    const float error = largest_error(ex2_approx, exponent, -1);
    std::printf("ex2.approx.ftz.f32   2^%-3d <= -x < 2^%-3d  %.3g\n", exponent, exponent + 1, error);
    largest = std::max(largest, error);
  }
  std::printf("ex2.approx.ftz.f32   largest                %.3g = 2^%.2f\n", largest, std::log2(largest));
  // Absolute, up to angles of position 10^6; beyond 2 pi the reduction of the angle takes over.
  for (int exponent = -12; exponent <= 19; ++exponent) {
    const float sine = largest_error(fast_sin, exponent, 1), cosine = largest_error(fast_cos, exponent, 1);
    std::printf("__sinf, __cosf       2^%-3d <= x < 2^%-3d    %.3g %.3g = 2^%.2f\n", exponent, exponent + 1, sine, cosine,
                std::log2(std::max(sine, cosine)));
  }
  for (const float theta : {1e4f, 5e5f, 1e6f, 1e7f}) {
    for (const int pairs : {32, 64, 128}) {
      const float error =
          largest_of([&](unsigned* worst) { probe_powers<<<1, threads>>>(theta, pairs, worst); });
      std::printf("__powf(1 / %-5g, k / %-3d)                   %.3g = 2^%.2f\n", theta, pairs, error, std::log2(error));
    }
  }
  return cudaGetLastError() == cudaSuccess ? 0 : 1;
}
