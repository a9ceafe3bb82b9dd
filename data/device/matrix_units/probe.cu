// Probes how the matrix units of an NVIDIA GPU add up: d = sum_k a_k b_k + c, through mma.sync and wgmma.
// All rows of A are equal, and all columns of B, so that one number of the result says all.
//
//   nvcc -gencode arch=compute_90a,code=sm_90a -o probe probe.cu && ./probe > h200.txt
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

enum Kind { F16_K8, F16_K16, BF16_K8, BF16_K16, TF32_K4, TF32_K8, E4M3_K32, E5M2_K32, F16_K16_F16ACC, WG_F16, WG_BF16, WG_TF32, WG_E4M3, WG_E5M2, KINDS };
const char* names[] = {"mma f16 k8", "mma f16 k16", "mma bf16 k8", "mma bf16 k16", "mma tf32 k4", "mma tf32 k8", "mma e4m3 k32", "mma e5m2 k32", "mma f16 k16 acc f16", "wgmma f16 k16", "wgmma bf16 k16", "wgmma tf32 k8", "wgmma e4m3 k32", "wgmma e5m2 k32"};
const int width[] = {8, 16, 8, 16, 4, 8, 32, 32, 16, 16, 16, 8, 32, 32};
const int bytes_of[] = {2, 2, 2, 2, 4, 4, 1, 1, 2, 2, 2, 4, 1, 1};

// a[k], b[k] as bits in element size; all rows of A equal a, all columns of B equal b.
__device__ uint32_t word(const uint8_t* v, int byte) { return *(const uint32_t*)(v + byte); }

__device__ uint64_t desc(const void* p) {
  uint32_t s = (uint32_t)__cvta_generic_to_shared(p);
  uint64_t d = 0;
  d |= (uint64_t)((s & 0x3FFFF) >> 4);
  d |= (uint64_t)(128 >> 4) << 16;  // leading: next 16 bytes of k
  d |= (uint64_t)(0) << 32;         // stride: all rows alike
  return d;
}

__global__ void run(int kind, const uint8_t* av, const uint8_t* bv, float c, float* out) {
  const int t = threadIdx.x % 4;
  __shared__ __align__(1024) uint8_t sa[1024], sb[1024];
  // k chunks of 16 bytes, each repeated for 8 rows
  for (int i = threadIdx.x; i < 2 * 8 * 16; i += blockDim.x) {
    const int chunk = i / 128, byte = i % 16;
    sa[i] = av[chunk * 16 + byte];
    sb[i] = bv[chunk * 16 + byte];
  }
  asm volatile("fence.proxy.async;" ::: "memory");
  __syncthreads();
  float d0 = c, d1 = c, d2 = c, d3 = c;
  if (kind == F16_K8 || kind == BF16_K8) {
    uint32_t a0 = word(av, t * 4), a1 = a0, b0 = word(bv, t * 4);
    if (kind == F16_K8) asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(b0));
    else asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(b0));
  } else if (kind == F16_K16 || kind == BF16_K16 || kind == F16_K16_F16ACC || kind == E4M3_K32 || kind == E5M2_K32) {
    uint32_t a0 = word(av, t * 4), a1 = a0, a2 = word(av, 16 + t * 4), a3 = a2, b0 = word(bv, t * 4), b1 = word(bv, 16 + t * 4);
    if (kind == F16_K16) asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    if (kind == BF16_K16) asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    if (kind == E4M3_K32) asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    if (kind == E5M2_K32) asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e5m2.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    if (kind == F16_K16_F16ACC) {
      __half2 h = __float2half2_rn(c);
      uint32_t e0 = *(uint32_t*)&h, e1 = e0;
      asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1},{%2,%3,%4,%5},{%6,%7},{%0,%1};" : "+r"(e0), "+r"(e1) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
      d0 = __low2float(*(__half2*)&e0);
    }
  } else if (kind == TF32_K4) {
    uint32_t a0 = word(av, t * 4), a1 = a0, b0 = word(bv, t * 4);
    asm volatile("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(b0));
  } else if (kind == TF32_K8) {
    uint32_t a0 = word(av, t * 4), a1 = a0, a2 = word(av, 16 + t * 4), a3 = a2, b0 = word(bv, t * 4), b1 = word(bv, 16 + t * 4);
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    const uint64_t da = desc(sa), db = desc(sb);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    if (kind == WG_F16) asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0,%1,%2,%3}, %4, %5, p, 1, 1, 0, 0; }" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "l"(da), "l"(db));
    if (kind == WG_BF16) asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, p, 1, 1, 0, 0; }" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "l"(da), "l"(db));
    if (kind == WG_TF32) asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%0,%1,%2,%3}, %4, %5, p, 1, 1; }" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "l"(da), "l"(db));
    if (kind == WG_E4M3) asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%0,%1,%2,%3}, %4, %5, p, 1, 1; }" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "l"(da), "l"(db));
    if (kind == WG_E5M2) asm volatile("{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n8k32.f32.e5m2.e5m2 {%0,%1,%2,%3}, %4, %5, p, 1, 1; }" : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "l"(da), "l"(db));
    asm volatile("wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  if (threadIdx.x == 0) *out = d0;
}

void encode(int kind, const std::vector<double>& v, uint8_t* to) {
  memset(to, 0, 64);
  for (size_t k = 0; k < v.size(); ++k) {
    const float x = (float)v[k];
    if (kind == F16_K8 || kind == F16_K16 || kind == F16_K16_F16ACC || kind == WG_F16) { __half h = __float2half(x); memcpy(to + 2 * k, &h, 2); }
    else if (kind == BF16_K8 || kind == BF16_K16 || kind == WG_BF16) { __nv_bfloat16 h = __float2bfloat16(x); memcpy(to + 2 * k, &h, 2); }
    else if (kind == TF32_K4 || kind == TF32_K8 || kind == WG_TF32) memcpy(to + 4 * k, &x, 4);
    else if (kind == E4M3_K32 || kind == WG_E4M3) { __nv_fp8_e4m3 h(x); memcpy(to + k, &h, 1); }
    else { __nv_fp8_e5m2 h(x); memcpy(to + k, &h, 1); }
  }
}

uint8_t *da, *db; float* dout;
double mma(int kind, const std::vector<double>& a, const std::vector<double>& b, double c) {
  uint8_t ha[64], hb[64];
  encode(kind, a, ha); encode(kind, b, hb);
  cudaMemcpy(da, ha, 64, cudaMemcpyHostToDevice); cudaMemcpy(db, hb, 64, cudaMemcpyHostToDevice);
  run<<<1, kind >= WG_F16 ? 128 : 32>>>(kind, da, db, (float)c, dout);
  float r; const cudaError_t e = cudaMemcpy(&r, dout, 4, cudaMemcpyDeviceToHost);
  if (e != cudaSuccess) { printf("%s: %s\n", names[kind], cudaGetErrorString(e)); exit(1); }
  return r;
}

int main() {
  cudaMalloc(&da, 64); cudaMalloc(&db, 64); cudaMalloc(&dout, 4);
  cudaDeviceProp prop; cudaGetDeviceProperties(&prop, 0);
  printf("device %s\n", prop.name);
  for (int kind = 0; kind < KINDS; ++kind) {
    const int K = width[kind];
    const bool fp8 = bytes_of[kind] == 1;
    std::vector<double> a(K, 0), b(K, 0);
    auto clear = [&] { a.assign(K, 0); b.assign(K, 0); };
    // sanity: sum of (k+1)
    for (int k = 0; k < K; ++k) a[k] = 1 + k % 7, b[k] = 1 + k % 3;
    double want = 5; for (int k = 0; k < K; ++k) want += a[k] * b[k];
    printf("%-20s exact %g %g\n", names[kind], want, mma(kind, a, b, 5));
    // power 2^-e as a product of two representable numbers (fp8: both halves; large side scaled up instead)
    // scale: the large product is 2^S, the small ones 2^(S-e)
    const int S = fp8 ? 14 : 10;
    auto put = [&](int k, double sign, int e) {  // product sign * 2^(S - e)
      int x = S - e, h = x / 2, r = x - h;
      a[k] = sign * std::ldexp(1.0, h); b[k] = std::ldexp(1.0, r);
    };
    const double one = std::ldexp(1.0, S);
    auto frac = [&](double r) { return r / one; };
    // (1) bits kept below the largest product, c = 0: smallest 2^-e that survives next to 1, in the same block (k = 0 and 1)
    for (int pos : {1, K / 2, K - 1}) {
      int last = -1;
      for (int e = 1; e <= 24; ++e) { clear(); put(0, 1, 0); put(pos, 1, e); const double r = frac(mma(kind, a, b, 0)); if (r == 1 + std::ldexp(1.0, -e)) last = e; }
      printf("  1 + 2^-e at k=0,%d: exact up to e = %d\n", pos, last);
    }
    // (2) 1 - 1 + 2^-e: how far below the largest term a term is kept at all
    for (int pos : {2, K / 2, K - 1}) {
      int last = -1;
      for (int e = 1; e <= 30; ++e) { clear(); put(0, 1, 0); put(1, -1, 0); put(pos, 1, e); const double r = frac(mma(kind, a, b, 0)); if (r == std::ldexp(1.0, -e)) last = e; }
      printf("  1 - 1 + 2^-e at k=0,1,%d: kept up to e = %d\n", pos, last);
    }
    // (3) the same with c as the large term: c = 1, product -1, product 2^-e
    {
      int last = -1, lastc = -1;
      for (int e = 1; e <= 30; ++e) {
        clear(); put(0, -1, 0); put(1, 1, e); double r = frac(mma(kind, a, b, one)); if (r == std::ldexp(1.0, -e)) last = e;
        clear(); put(0, 1, 0); put(1, -1, 0); r = frac(mma(kind, a, b, one * std::ldexp(1.0, -e))); if (r == std::ldexp(1.0, -e)) lastc = e;
      }
      printf("  c=1, -1 + 2^-e: kept up to e = %d;   1 - 1, c=2^-e: kept up to e = %d\n", last, lastc);
    }
    // (4) rounding at the end: 1 + 3 * 2^-25 etc. through two exact smaller products when bits allow
    {
      auto four = [&](double s, double c) { clear(); put(0, s, 0); put(1, s, 24); put(2, s, 25); return frac(mma(kind, a, b, c)); };
      printf("  1 + 2^-24 + 2^-25 -> 1 + %g ulp;  negative -> -1 - %g ulp;", (four(1, 0) - 1) * 0x1p23, -(four(-1, 0) + 1) * 0x1p23);
      clear(); put(0, 1, 0); put(1, -1, 25); printf("  1 - 2^-25 -> 1 - %g half ulps;", (1 - frac(mma(kind, a, b, 0))) * 0x1p24);
      clear(); put(0, 1, 0); for (int k = 1; k < K; ++k) put(k, 1, 24); printf("  1 + %d * 2^-24 -> 1 + %g ulp;", K - 1, (frac(mma(kind, a, b, 0)) - 1) * 0x1p23);
      clear(); for (int k = 0; k < K; ++k) put(k, 1, 24); printf("  c = 1, %d * 2^-24 -> 1 + %g ulp", K, (frac(mma(kind, a, b, one)) - 1) * 0x1p23);
      clear(); for (int k = 0; k < K; ++k) put(k, 1, 25); printf("; %d * 2^-25 -> 1 + %g ulp", K, (frac(mma(kind, a, b, one)) - 1) * 0x1p23);
      clear(); for (int k = 0; k < K; ++k) put(k, 1, 26); printf("; %d * 2^-26 -> 1 + %g ulp\n", K, (frac(mma(kind, a, b, one)) - 1) * 0x1p23);
    }
    // (5) which terms share an addition with k = 0: a small one beside 1 - 1 is lost there
    {
      printf("  lost beside k=0 at e=27 (1 at 0, -1 at 1, 2^-27 at j):");
      for (int j = 2; j < K; ++j) { clear(); put(0, 1, 0); put(1, -1, 0); put(j, 1, 27); printf(" %d", mma(kind, a, b, 0) == 0 ? 0 : 1); }
      printf("\n");
    }
  }
}
