// Finding faults and planting them.
#include "tests/faults/fault.hpp"

#include <cstdlib>
#include <iostream>

namespace attest::emulate {

std::span<const Family> all_families() {
  static const Family all[] = {
      mask_faults(),      score_faults(), tile_faults(),     merge_faults(),
      precision_faults(), store_faults(), gradient_faults(), gradient_precision_faults()};
  return all;
}

const Fault& fault_named(std::string_view name) {
  for (const Family& family : all_families()) {
    for (const Fault& fault : family.faults) {
      if (fault.name == name) return fault;
    }
  }
  std::cerr << "no fault is called " << name << '\n';
  std::abort();
}

Case faulty_dump_of(const Setup& setup, const Kernel& kernel, const Fault& fault, bool with_gradients,
                    const std::vector<std::string>& outputs) {
  Case c = inputs_of(setup, kernel.p_dtype);
  if (!with_gradients) c.in.erase("do");
  return faulty_dump_of(std::move(c), setup, kernel, fault, with_gradients, outputs);
}

Case faulty_dump_of(Case c, const Setup& setup, const Kernel& kernel, const Fault& fault, bool with_gradients,
                    const std::vector<std::string>& outputs) {
  Setup seen = setup;
  Kernel broken = kernel;
  if (fault.in_kernel) fault.in_kernel(broken, seen);
  Case read = c;
  if (fault.in_reads) fault.in_reads(read);
  AttentionInputs in = views_of(read);
  if (const auto lengths = read.in.find("kv_lengths"); lengths != read.in.end()) {
    const Index keys = static_cast<Index>(lengths->second.values[0]);
    in.k = in.k.narrowed(1, 0, keys), in.v = in.v.narrowed(1, 0, keys);
    if (in.mask) in.mask = in.mask.narrowed(2, 0, keys);
  }
  if (!seen.has_sink) in.sink = {};
  if (!seen.has_mask) in.mask = {};
  if (!seen.has_alibi) in.alibi_slopes = {};
  if (seen.bias_shape.empty()) in.bias = {};
  View<const double, 3> d_o;
  if (with_gradients) d_o = {read.in.at("do").values.data(), {setup.q_heads, setup.queries, setup.v_width}};
  Results results = run(broken, seen.spec, in, d_o, setup.element);
  if (fault.in_results) fault.in_results(results, setup);
  store(c, results, outputs, setup.element, kernel.p_dtype);
  return c;
}

}  // namespace attest::emulate
