// Judging cases in memory by rows and keys drawn by chance.
#pragma once

#include "tests/emulate/cases.hpp"
#include "tests/emulate/judged.hpp"
#include "verify/verdict/row_sample.hpp"

namespace attest::emulate {

/// The part of a tensor that a selection names.
inline Tensor part_of(const Tensor& whole, const Selection& selection) {
  Tensor part{whole.type_name, whole.dtype, {}, {}};
  for (const auto& indices : selection) part.shape.push_back(std::ssize(indices));
  for (Index n = 0; n < part.size(); ++n) {
    Index rest = n, at = 0, step = 1;
    for (std::size_t axis = selection.size(); axis-- > 0; rest /= part.shape[axis]) {
      at += step * selection[axis][rest % part.shape[axis]];
      step *= whole.shape[axis];
    }
    part.values.push_back(whole.values[at]);
  }
  return part;
}

inline Case parts_of(const Case& c, const Dump::Parts& parts) {
  Case some = c;
  some.in.clear(), some.out.clear();
  for (const auto& [name, tensor] : c.in)
    if (const auto part = parts("in/" + name)) some.in[name] = part_of(tensor, *part);
  for (const auto& [name, tensor] : c.out)
    if (const auto part = parts("out/" + name)) some.out[name] = part_of(tensor, *part);
  return some;
}

inline CaseFindings by_rows(const Case& c, const RowSample& sample) {
  Progress progress;
  return verify_rows(
      c, sample, [&](const Dump::Parts& parts) { return parts_of(c, parts); }, progress);
}

inline RowsWanted rows(Index count, std::uint64_t seed = 1) {
  return {count, false, seed};
}

inline Kernel plain(DType element) {
  Kernel kernel;
  kernel.p_dtype = element;
  return kernel;
}

}  // namespace attest::emulate
