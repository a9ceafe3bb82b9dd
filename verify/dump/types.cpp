// The element types of dumps, recognised by their layout; decoding of their bytes.
#include "verify/dump/types.hpp"

#include <cassert>
#include <limits>

namespace attest {
namespace {

using Kind = ElementType::Kind;

bool fills_its_bytes(hid_t type) {
  return H5Tget_offset(type) == 0 && H5Tget_precision(type) == 8 * H5Tget_size(type);
}

std::optional<ElementType> float_type(hid_t type) {
  std::size_t sign = 0, exponent = 0, exponent_bits = 0, fraction = 0, fraction_bits = 0;
  if (H5Tget_fields(type, &sign, &exponent, &exponent_bits, &fraction, &fraction_bits) < 0)
    return std::nullopt;
  if (H5Tget_norm(type) != H5T_NORM_IMPLIED) return std::nullopt;
  for (const Format& f : all_formats()) {
    const auto bits = static_cast<std::size_t>(f.bits);
    const auto stored = static_cast<std::size_t>(f.precision - 1);  // fraction bits, without the hidden one
    const bool same = 8 * H5Tget_size(type) == bits && sign == bits - 1 && exponent == stored &&
                      exponent_bits == bits - 1 - stored && fraction == 0 && fraction_bits == stored &&
                      H5Tget_ebias(type) == static_cast<std::size_t>(1 - f.emin);
    if (same) return ElementType{Kind::floating, std::string(f.name), f.dtype, bits / 8, true, false};
  }
  return std::nullopt;
}

std::optional<ElementType> integer_type(hid_t type) {
  const std::size_t bytes = H5Tget_size(type);
  if (bytes != 1 && bytes != 2 && bytes != 4 && bytes != 8) return std::nullopt;
  const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
  const std::string name = (is_signed ? "int" : "uint") + std::to_string(8 * bytes);
  return ElementType{Kind::integer, name, std::nullopt, bytes, is_signed, false};
}

/// The value of the enumeration's member `name`, which must have the type int8; -1 without such a member.
int member_value(hid_t type, const char* name) {
  signed char value = -1;
  return H5Tenum_valueof(type, name, &value) < 0 ? -1 : value;
}

/// h5py and PyTables write booleans as an enumeration of FALSE = 0 and TRUE = 1 over int8.
std::optional<ElementType> boolean_type(hid_t type) {
  const Handle base(H5Tget_super(type));
  const bool same = base.is_valid() && H5Tget_class(base) == H5T_INTEGER && H5Tget_size(base) == 1 &&
                    H5Tget_nmembers(type) == 2 && member_value(type, "FALSE") == 0 &&
                    member_value(type, "TRUE") == 1;
  if (!same) return std::nullopt;
  return ElementType{Kind::boolean, "bool", std::nullopt, 1, false, false};
}

std::uint64_t bits_of(const ElementType& type, std::span<const std::byte> element) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < type.bytes; ++i) {
    const std::size_t most_significant_first = type.is_big_endian ? i : type.bytes - 1 - i;
    bits = bits << 8 | std::to_integer<std::uint64_t>(element[most_significant_first]);
  }
  return bits;
}

std::int64_t sign_extended(std::uint64_t bits, std::size_t bytes) {
  const auto unused = static_cast<int>(64 - 8 * bytes);
  return static_cast<std::int64_t>(bits << unused) >> unused;
}

/// Values of so many elements, or more, come from a table of all patterns of 16 bits.
constexpr std::size_t worth_a_table = std::size_t{1} << 16;

void decode_by_table(const ElementType& type, std::span<const std::byte> bytes, std::vector<double>& values) {
  std::vector<double> table(worth_a_table);
  for (std::size_t bits = 0; bits < table.size(); ++bits) table[bits] = decode(bits, *type.dtype);
  const std::size_t high = type.is_big_endian ? 0 : 1;
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = table[std::to_integer<std::size_t>(bytes[2 * i + high]) << 8 |
                      std::to_integer<std::size_t>(bytes[2 * i + 1 - high])];
  }
}

/// Within the integers that double holds without gaps.
bool is_exact(const ElementType& type, std::uint64_t bits) {
  constexpr std::int64_t limit = std::int64_t{1} << std::numeric_limits<double>::digits;
  if (!type.is_signed) return bits <= static_cast<std::uint64_t>(limit);
  const std::int64_t value = sign_extended(bits, type.bytes);
  return -limit <= value && value <= limit;
}

std::string shown_integer(const ElementType& type, std::uint64_t bits) {
  return type.is_signed ? std::to_string(sign_extended(bits, type.bytes)) : std::to_string(bits);
}

}  // namespace

std::optional<ElementType> element_type(hid_t type) {
  std::optional<ElementType> result;
  const H5T_class_t type_class = H5Tget_class(type);
  if (type_class == H5T_ENUM) return boolean_type(type);
  if (type_class != H5T_FLOAT && type_class != H5T_INTEGER) return std::nullopt;
  const H5T_order_t order = H5Tget_order(type);
  const bool order_is_known = H5Tget_size(type) == 1 || order == H5T_ORDER_LE || order == H5T_ORDER_BE;
  if (!order_is_known || !fills_its_bytes(type)) return std::nullopt;
  result = type_class == H5T_FLOAT ? float_type(type) : integer_type(type);
  if (result) result->is_big_endian = order == H5T_ORDER_BE;
  return result;
}

std::string description(hid_t type) {
  const std::string bits = std::to_string(8 * H5Tget_size(type)) + "-bit ";
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      return "a " + bits + "float type of an unknown layout";
    case H5T_INTEGER:
      return "an integer type of " + std::to_string(H5Tget_precision(type)) + " bits";
    case H5T_STRING:
      return "text";
    case H5T_COMPOUND:
      return "a compound type";
    case H5T_ENUM:
      return "an enumeration other than FALSE = 0, TRUE = 1";
    case H5T_ARRAY:
      return "an array type";
    case H5T_VLEN:
      return "a variable-length type";
    case H5T_REFERENCE:
      return "references";
    case H5T_OPAQUE:
      return "an opaque type";
    case H5T_BITFIELD:
      return "a bit field";
    default:
      return "an unknown type";
  }
}

ElementType reinterpreted(const ElementType& type, const std::string& dtype, const std::string& object) {
  if (dtype == type.name) return type;
  const std::optional<DType> meant = dtype_named(dtype);
  const bool is_name =
      meant == DType::bfloat16 || meant == DType::float8_e4m3fn || meant == DType::float8_e5m2;
  const bool holds_bits = type.kind == Kind::integer && !type.is_signed;
  if (!is_name || !holds_bits || static_cast<std::size_t>(format_of(*meant).bits) != 8 * type.bytes) {
    reject(object, "is stored as " + type.name + " and its attribute dtype is \"" + dtype + "\"",
           "accepted: bfloat16 on uint16, float8_e4m3fn or float8_e5m2 on uint8");
  }
  ElementType result = type;
  result.kind = Kind::floating;
  result.name = dtype;
  result.dtype = meant;
  return result;
}

std::vector<double> decode_elements(const ElementType& type, std::span<const std::byte> bytes,
                                    const std::string& object) {
  assert(bytes.size() % type.bytes == 0);
  std::vector<double> values(bytes.size() / type.bytes);
  if (type.kind == Kind::floating && type.bytes == 2 && values.size() >= worth_a_table) {
    decode_by_table(type, bytes, values);
    return values;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint64_t bits = bits_of(type, bytes.subspan(i * type.bytes, type.bytes));
    const auto place = [&] { return "element " + std::to_string(i) + " is " + shown_integer(type, bits); };
    switch (type.kind) {
      case Kind::floating:
        values[i] = decode(bits, *type.dtype);
        break;
      case Kind::integer:
        if (!is_exact(type, bits)) reject(object, place(), "integers up to 2^53 are accepted");
        values[i] = static_cast<double>(sign_extended(bits, type.is_signed ? type.bytes : 8));
        break;
      case Kind::boolean:
        if (bits > 1) reject(object, place(), "a boolean is 0 or 1");
        values[i] = static_cast<double>(static_cast<int>(bits));
    }
  }
  return values;
}

Attribute decode_attribute(const ElementType& type, std::span<const std::byte> bytes,
                           const std::string& object) {
  assert(bytes.size() == type.bytes);
  if (type.kind == Kind::floating) return decode_elements(type, bytes, object).front();
  if (type.kind == Kind::boolean) return decode_elements(type, bytes, object).front() != 0;
  const std::uint64_t bits = bits_of(type, bytes);
  if (type.is_signed) return sign_extended(bits, type.bytes);
  if (bits > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    reject(object, "is " + std::to_string(bits), "integers below 2^63 are accepted");
  }
  return static_cast<std::int64_t>(bits);
}

}  // namespace attest
