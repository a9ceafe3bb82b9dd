// What is measured: attention of one shape after the other, and RMSNorm and RoPE.
#pragma once

#include <memory>

#include "bench/sandwich.hpp"
#include "tiled/dispatch.hpp"

namespace attest::bench {

struct Cases {
  std::vector<Case> cases;
  std::vector<std::string> notes;           // on what is not there
  std::vector<std::shared_ptr<void>> kept;  // tensors and probes that cases refer to
};

/// v4 of x86-64-v4.
inline std::string short_name(tiled::Level level) {
  return std::string(tiled::name_of(level)).substr(7);
}

/// As shares of the multiply-add peak of the same threads. Only cases whose name contains `only` are added.
void add_attention_cases(const std::vector<int>& threads, const std::string& only, Cases& out);

/// The same for what `attest verify` computes; only the operations of the two products are counted.
void add_bounds_cases(const std::vector<int>& threads, const std::string& only, Cases& out);

/// As shares of what a copy of 64 MiB past the caches reaches, in bytes read and written; tables are not
/// counted.
void add_row_cases(const std::vector<int>& threads, const std::string& only, Cases& out);

}  // namespace attest::bench
