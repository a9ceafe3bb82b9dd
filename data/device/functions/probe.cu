// How far tanh.approx.f32 and ex2.approx.ftz.f32 of an NVIDIA GPU are off: the largest relative error over every float
// of each binade.
//
//   nvcc -arch=native -o probe probe.cu && ./probe > h200.txt
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

constexpr int floats_per_binade = 1 << 23, threads = 256;

enum Function { tanh_approx, ex2_approx };

/// The errors of 2^exponent (1 + n 2^-23), with that sign, for all n: the largest as the bits of a float, which order
/// as the numbers do.
__global__ void probe(Function function, int exponent, float sign, unsigned* largest) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  const float x = sign * ldexpf(1 + n * 0x1p-23f, exponent);
  float y;
  double exact;
  if (function == tanh_approx) {
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    exact = tanh(static_cast<double>(x));
  } else {
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    exact = exp2(static_cast<double>(x));
  }
  atomicMax(largest, __float_as_uint(static_cast<float>(fabs(y / exact - 1))));
}

float largest_error(Function function, int exponent, float sign) {
  unsigned* device = nullptr;
  cudaMalloc(&device, sizeof *device);
  cudaMemset(device, 0, sizeof *device);
  probe<<<floats_per_binade / threads, threads>>>(function, exponent, sign, device);
  unsigned bits = 0;
  cudaMemcpy(&bits, device, sizeof bits, cudaMemcpyDeviceToHost);
  cudaFree(device);
  float error;
  std::memcpy(&error, &bits, sizeof error);
  return error;
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
  return cudaGetLastError() == cudaSuccess ? 0 : 1;
}
