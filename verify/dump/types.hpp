// The element types of dumps: which HDF5 types they are, and the exact values of their bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "verify/case.hpp"
#include "verify/dump/hdf5_handle.hpp"

namespace attest {

/// A type of one to eight bytes without padding.
struct ElementType {
  enum class Kind { floating, integer, boolean };
  Kind kind;
  std::string name;            // "float16", "uint8", "bool"
  std::optional<DType> dtype;  // of a floating kind
  std::size_t bytes;
  bool is_signed;
  bool is_big_endian;
};

/// Of an HDF5 float, integer or boolean type; absent for everything else.
std::optional<ElementType> element_type(hid_t type);

/// "a compound type", "text", ...: for messages on types that are none of ours.
std::string description(hid_t type);

/// type, or what the attribute `dtype` says that its bits mean. Throws InvalidCase if the two contradict each
/// other.
ElementType reinterpreted(const ElementType& type, const std::string& dtype, const std::string& object);

/// The values of `bytes`, a whole number of elements. Throws InvalidCase, naming the object and the place, at
/// an integer that double cannot hold and at a boolean other than 0 and 1.
std::vector<double> decode_elements(const ElementType& type, std::span<const std::byte> bytes,
                                    const std::string& object);

/// The attribute whose bytes these are. Throws InvalidCase if it is beyond the range of int64.
Attribute decode_attribute(const ElementType& type, std::span<const std::byte> bytes,
                           const std::string& object);

}  // namespace attest
