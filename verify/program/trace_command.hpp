// `attest trace`.
#pragma once

#include <cstdint>
#include <string>

namespace attest {

struct TraceOptions {
  std::string shape = "8x8x4x4";    // Sq x Sk x D x E
  std::string tile = "2x3";         // query rows x keys
  std::string causal = "top_left";  // as the key of the op attention
  bool backward = false;
  std::uint64_t seed = 1;
  int digits = 17;     // significant ones of every number
  std::string output;  // file; empty: standard output
};

/// Writes a small attention, tile by tile, as docs/trace_json.md has it; returns the exit status. Throws
/// UsageError where an option makes no sense, or where attest was built without attest::tiled.
int trace(const TraceOptions& options);

}  // namespace attest
