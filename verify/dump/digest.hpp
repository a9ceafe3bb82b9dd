// A digest by which two reports know that they speak of the same inputs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "verify/case.hpp"

namespace attest {

/// 64 bits that change, as if by chance, with everything that was added and its order. Guards against
/// mix-ups, not against malice.
class Digest {
 public:
  void add(std::uint64_t bits);
  void add(std::string_view text);
  void add(std::span<const double> values);
  void add(const Digest& other) { add(other.state_); }
  std::string text() const;  // 16 hexadecimal digits

 private:
  std::uint64_t state_ = 0;
};

/// Of op, spec and inputs: element types, shapes and values; and of which rows they are.
Digest digest_of(const Case& c);

}  // namespace attest
