// Faults to plant in an emulated kernel.
#pragma once

#include <span>
#include <string_view>

#include "tests/emulate/cases.hpp"

namespace attest::emulate {

/// One of the two functions is null.
struct Fault {
  std::string_view name;
  void (*in_kernel)(Kernel& kernel, Setup& seen);  // seen: what the kernel believes that it is asked
  void (*in_results)(Results& results, const Setup& setup);
};

std::span<const Fault> all_faults();
const Fault& fault_named(std::string_view name);

/// The dump of `kernel` with a fault, labelled as one without.
Case faulty_dump_of(const Setup& setup, const Kernel& kernel, const Fault& fault, bool with_gradients,
                    const std::vector<std::string>& outputs = all_outputs);

}  // namespace attest::emulate
