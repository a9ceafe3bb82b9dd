// Digests by multiplication and shifts.
#include "verify/dump/digest.hpp"

#include <array>
#include <bit>

namespace attest {

// The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), chained.
void Digest::add(std::uint64_t bits) {
  std::uint64_t z = (state_ ^ bits) + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  state_ = z ^ (z >> 31);
}

void Digest::add(std::string_view text) {
  add(std::uint64_t{text.size()});
  for (const char c : text) add(std::uint64_t{static_cast<unsigned char>(c)});
}

void Digest::add(std::span<const double> values) {
  // Several chains at a time: one would wait for each of its multiplications.
  std::array<Digest, 8> chains;
  const Index count = std::ssize(values);
  for (Index n = 0; n < count; ++n) chains[n % chains.size()].add(std::bit_cast<std::uint64_t>(values[n]));
  for (const Digest& chain : chains) add(chain.state_);
}

std::string Digest::text() const {
  std::string digits;
  for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[state_ >> shift & 15];
  return digits;
}

Digest digest_of(const Case& c) {
  Digest digest;
  digest.add(c.op);
  for (const auto& [key, attribute] : c.spec) {
    digest.add(key);
    digest.add(std::uint64_t{attribute.index()});
    if (const auto* text = std::get_if<std::string>(&attribute)) digest.add(*text);
    if (const auto* number = std::get_if<double>(&attribute))
      digest.add(std::bit_cast<std::uint64_t>(*number));
    if (const auto* number = std::get_if<std::int64_t>(&attribute))
      digest.add(static_cast<std::uint64_t>(*number));
    if (const auto* truth = std::get_if<bool>(&attribute)) digest.add(std::uint64_t{*truth});
  }
  for (const auto& [name, tensor] : c.in) {
    digest.add(name);
    digest.add(tensor.type_name);
    for (const Index extent : tensor.shape) digest.add(static_cast<std::uint64_t>(extent));
    digest.add(tensor.values);
  }
  for (const Index row : c.row) digest.add(static_cast<std::uint64_t>(row));
  return digest;
}

}  // namespace attest
