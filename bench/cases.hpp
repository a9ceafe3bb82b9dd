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

/// All that is measured with these numbers of threads and has `only` in its name.
Cases all_cases(const std::vector<int>& threads, const std::string& only);

// Its parts. As shares of the multiply-add peak of the same threads:

void add_attention_cases(const std::vector<int>& threads, const std::string& only, Cases& out);

/// What `attest verify` computes; only the operations of the two products are counted.
void add_bounds_cases(const std::vector<int>& threads, const std::string& only, Cases& out);

/// Double-double; 4 N^2 D operations are counted forward and 10 N^2 D backward, as if they were double's.
void add_precise_cases(const std::vector<int>& threads, const std::string& only, Cases& out);

/// As shares of what a copy of 64 MiB past the caches reaches, in bytes read and written; tables are not
/// counted.
void add_row_cases(const std::vector<int>& threads, const std::string& only, Cases& out);

}  // namespace attest::bench
