// The arithmetic of a device as a contract describes it, and the forward pass in it. Vectors only lay the
// work out like the native pass does: whatever rounds differently from it is a loop over scalars.
#include "tiled/emulated.hpp"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "tiled/forward.hpp"
#include "tiled/heads.hpp"
#include "tiled/merge.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {
namespace {

double rounded(double x, DType dtype) {
  return dtype == DType::float32 ? static_cast<double>(static_cast<float>(x)) : round_to(x, dtype);
}

/// sum + products [first, last) as one instruction of a tensor core adds them: all terms are aligned to the
/// largest and cut off below its places, and so is the sum.
template <class ProductOf>
double block_sum(const Accumulator& adder, double sum, Index first, Index last, const ProductOf& product) {
  double largest = std::abs(sum), total = sum;
  for (Index k = first; k < last; ++k) {
    largest = std::max(largest, std::abs(product(k)));
    total += product(k);
  }
  if (largest == 0 || !std::isfinite(total)) return total;
  const int last_place = std::ilogb(largest) - (format_of(adder.dtype).precision - 1) - adder.extra_bits;
  const double place = std::ldexp(1.0, last_place), per_place = std::ldexp(1.0, -last_place);
  total = std::trunc(sum * per_place);
  for (Index k = first; k < last; ++k) total += std::trunc(product(k) * per_place);
  return round_to(total * place, adder.dtype, Rounding::toward_zero);
}

/// x y + z, rounded once where Real is float.
template <class Real>
Real multiply_add(Real x, Real y, Real z) {
  return static_cast<Real>(static_cast<double>(x) * static_cast<double>(y) + static_cast<double>(z));
}

/// 2^x and log2 x as an H200 approximates them in float32: what does not fit is cut off, log2 having been
/// rounded to 23 binary places before.
template <class Real>
Real device_exp2(double x) {
  const double y = std::exp2(x);
  return static_cast<Real>(sizeof(Real) == 4 ? round_to(y, DType::float32, Rounding::toward_zero) : y);
}
template <class Real>
Real device_log2(double x) {
  const double y = std::log2(x);
  if (sizeof(Real) == 8) return static_cast<Real>(y);
  return static_cast<Real>(
      round_to(std::nearbyint(y * 0x1p23) * 0x1p-23, DType::float32, Rounding::toward_zero));
}

/// Products of tiles, each sum formed as the contract says.
template <class Real>
struct EmulatedProducts {
  Accumulator adder;
  Real factor;  // of a product that starts at 0, after it has been summed

  template <Operand operand>
  void multiply(const Product<Real>& x, Index rows, Index vectors) const {
    for (Index i = 0; i < rows; ++i) {
      for (Index n = 0; n < vectors * lanes<Real>; ++n) {
        Real& c = x.c[i * x.c_stride + n];
        const auto product = [&](Index k) {
          const Real a = operand == Operand::plain ? x.a[i * x.a_stride + k] : x.a[k * x.a_stride + i];
          return static_cast<double>(a) * static_cast<double>(x.b[k * x.b_stride + n]);
        };
        if (x.accumulate) {
          c = static_cast<Real>(sum(x.factor ? x.factor[i] * c : c, x.depth, product));
        } else {
          c = static_cast<Real>(sum(0, x.depth, product)) * factor;
        }
      }
    }
  }

  template <class ProductOf>
  double sum(double start, Index depth, const ProductOf& product) const {
    if (adder.block == 0) {
      for (Index k = 0; k < depth; ++k) start = rounded(start + product(k), adder.dtype);
      return start;
    }
    for (Index k = 0; k < depth; k += adder.block) {
      start = block_sum(adder, start, k, least(k + adder.block, depth), product);
    }
    return start;
  }
};

/// See Native for what the members are. Scores lack the factor `unit` to be exponents of 2.
template <class R>
struct Emulated : Unwatched {
  using Real = R;
  static constexpr bool takes_all = true, sums_tiles_apart = true;

  Index tile, longest_tile;
  EmulatedProducts<Real> qk, pv;
  DType p_dtype;
  Real unit, natural_unit;

  /// head: the whole one, before it is dealt to parts.
  Emulated(const Contract& contract, const EmulatedKernel& kernel, const Head<Real>& head)
      : tile(kernel.key_tile), longest_tile(tile), p_dtype(contract.p_dtype) {
    const double scale = head.spec.scale;
    const bool scales_in_exponent = !is_plus_anything(head) && scale > 0;
    qk = {contract.qk, scales_in_exponent ? Real{1} : ATTEST_TILED_LEVEL::query_factor(head)};
    pv = {contract.pv, Real{1}};
    natural_unit = scales_in_exponent ? static_cast<Real>(scale) : ln_2<Real>;
    unit = scales_in_exponent ? static_cast<Real>(natural_unit * log2_of_e<double>) : Real{1};
  }

  static bool is_plus_anything(const Head<Real>& head) {
    return head.spec.softcap != 0 || head.alibi_slope || head.bias.data || head.sink;
  }

  Real query_factor(const Head<Real>&) const { return 1; }
  Vector<Real> weight(Vector<Real> s, Vector<Real> m) const {
    for (int n = 0; n < lanes<Real>; ++n) s[n] = device_exp2<Real>(multiply_add(s[n], unit, -(m[n] * unit)));
    return s;
  }
  Vector<Real> rescaling(Vector<Real> m_old, Vector<Real> m_new) const {
    for (int n = 0; n < lanes<Real>; ++n) m_old[n] = device_exp2<Real>((m_old[n] - m_new[n]) * unit);
    return m_old;
  }
  Vector<Real> stored(Vector<Real> p) const {
    for (int n = 0; n < lanes<Real>; ++n) p[n] = static_cast<Real>(round_to(p[n], p_dtype));
    return p;
  }
  Vector<Real> natural(Vector<Real> m) const { return m * natural_unit; }
  Vector<Real> lse(Vector<Real> m, Vector<Real> l) const {
    for (int n = 0; n < lanes<Real>; ++n) {
      const Real log = device_log2<Real>(l[n]) * ln_2<Real>;
      m[n] = multiply_add(m[n], natural_unit, log);
    }
    return m;
  }
};

/// One tile of queries against one part of its keys.
template <class Real>
void run_tile(const Emulated<Real>& arithmetic, const EmulatedKernel& kernel, const Head<Real>& head,
              const ForwardHead<Real>& out, Index part) {
  const RowTiles tiles = forward_tiles(head);
  const Scratch<Real> scratch(ForwardScratch<Real>(head, arithmetic.longest_tile, nullptr).size);
  RowTask task{0, head.queries, part, kernel.splits, kernel.normalisation};
  const KeyRange keys = keys_of_part(head, task, kernel.key_tile, kernel.key_tile);
  for (; task.first_row < head.queries; task.first_row += tiles.rows) {
    task.rows = least(tiles.rows, head.queries - task.first_row);
    forward(arithmetic, head, out, task, keys, scratch.data());
  }
}

template <class To, class From, int Rank>
void copy(View<From, Rank> from, View<To, Rank> to) {
  for (Index n = 0; n < to.extent(0); ++n) {
    if constexpr (Rank == 1) {
      to(n) = static_cast<To>(from(n));
    } else {
      copy(from.slice(n), to.slice(n));
    }
  }
}

/// A copy in another type.
template <class Real, int Rank>
Array<Real, Rank> converted(View<const double, Rank> x) {
  typename View<Real, Rank>::Extents extents;
  for (int r = 0; r < Rank; ++r) extents[r] = x.extent(r);
  Array<Real, Rank> result(extents);
  copy(x, result.view());
  return result;
}

template <class Real>
void run(const AttentionSpec& spec, const Contract& contract, const EmulatedKernel& kernel,
         const AttentionInputs& x, const Outputs<double>& results) {
  const Array<Real, 3> q = converted<Real>(x.q), k = converted<Real>(x.k), v = converted<Real>(x.v),
                       mask = converted<Real>(x.mask), bias = converted<Real>(x.bias);
  const Array<Real, 1> slopes = converted<Real>(x.alibi_slopes), sink = converted<Real>(x.sink);
  Inputs<Real> in{q.view(), k.view(), v.view(), mask.view(), bias.view(), slopes.view(), sink.view(), x.past};
  std::vector<ForwardTensors<Real>> parts;
  for (Index n = 0; n < kernel.splits; ++n) parts.emplace_back(in);

  const Index heads = in.q_heads(), tiles = (in.queries() + kernel.query_tile - 1) / kernel.query_tile;
#pragma omp parallel for schedule(dynamic, 1)
  for (Index n = 0; n < heads * tiles * kernel.splits; ++n) {
    const Index h = n / (tiles * kernel.splits), part = n % kernel.splits;
    const Index first = n / kernel.splits % tiles * kernel.query_tile;
    const Head<Real> whole = query_head(spec, in, h);
    const Head<Real> head = rows_of(whole, first, least(kernel.query_tile, in.queries() - first));
    run_tile(Emulated<Real>(contract, kernel, whole), kernel, head_of_part(head, part, kernel.splits),
             rows_of(forward_head(parts[part].outputs(), h), first), part);
  }

  ForwardTensors<Real> merged(in);
  if (kernel.splits > 1) {
    const std::vector<Part<Real>> found = parts_of(parts);
    const auto exponential = [](Real y) { return device_exp2<Real>(y * log2_of_e<Real>); };
    const auto logarithm = [](Real y) { return device_log2<Real>(y) * ln_2<Real>; };
    for (Index h = 0; h < heads; ++h) {
      for (Index i = 0; i < in.queries(); ++i) {
        if (merge_row<Real>(found, merged.outputs(), h, i, exponential, logarithm)) continue;
        write_empty_row(query_head(spec, in, h), forward_head(merged.outputs(), h), i);
      }
    }
  }
  const Outputs<Real> out = kernel.splits > 1 ? merged.outputs() : parts[0].outputs();
  if (results.o) copy(out.o, results.o);
  if (results.lse) copy(out.lse, results.lse);
  if (results.m) copy(out.m, results.m);
  if (results.l) copy(out.l, results.l);
}

}  // namespace
}  // namespace attest::tiled::ATTEST_TILED_LEVEL

namespace attest::tiled {

void attention_forward_emulated(const AttentionSpec& spec, const Contract& contract,
                                const EmulatedKernel& kernel, const AttentionInputs& in,
                                const Outputs<double>& out) {
  assert(kernel.key_tile > 0 && kernel.query_tile > 0 && kernel.splits > 0);
  if (contract.softmax_dtype == DType::float32) {
    emulated::run<float>(spec, contract, kernel, in, out);
  } else if (contract.softmax_dtype == DType::float64) {
    emulated::run<double>(spec, contract, kernel, in, out);
  } else {
    throw std::invalid_argument("attention_forward_emulated: softmax in neither float32 nor float64");
  }
}

}  // namespace attest::tiled
