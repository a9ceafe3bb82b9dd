// Faults to plant in an emulated attention kernel, each taken from a public report or named as made up.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/emulate/cases.hpp"

namespace attest::emulate {

/// Functions that are null do nothing.
struct Fault {
  std::string_view name;
  std::string_view source;                // the report that it was inspired by; "made up" if there is none
  bool is_backward = false;               // shows in gradients only
  void (*needs)(Setup& setup) = nullptr;  // what a case must have for the fault to matter
  void (*in_kernel)(Kernel& kernel, Setup& seen) = nullptr;  // seen: what the kernel believes to be asked
  void (*in_reads)(Case& read) = nullptr;                    // what the kernel reads in place of the inputs
  void (*in_results)(Results& results, const Setup& setup) = nullptr;
  std::vector<std::string_view> named = {};  // a cause that contains one of these, or is one after "="
  std::vector<DType> elements = {};          // for which it is a fault; empty: for all
};

struct Family {
  std::string_view name;
  std::span<const Fault> faults;
};

Family mask_faults();
Family score_faults();
Family tile_faults();
Family merge_faults();
Family precision_faults();
Family store_faults();
Family gradient_faults();
Family gradient_precision_faults();

/// All of the above.
std::span<const Family> all_families();

/// Terminates the program if there is none.
const Fault& fault_named(std::string_view name);

/// The dump of `kernel` with a fault, labelled as one without.
Case faulty_dump_of(const Setup& setup, const Kernel& kernel, const Fault& fault, bool with_gradients,
                    const std::vector<std::string>& outputs = all_outputs);

/// The same on inputs that are given: one batch entry in layout bhsd that the setup describes, perhaps with
/// kv_lengths, but then without gradients.
Case faulty_dump_of(Case inputs, const Setup& setup, const Kernel& kernel, const Fault& fault,
                    bool with_gradients, const std::vector<std::string>& outputs);

}  // namespace attest::emulate
