// Reads what a dump's groups hold: tensors from datasets, attributes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "verify/case.hpp"
#include "verify/dump/hdf5_handle.hpp"

namespace attest {

/// The tensor of an open dataset: without its values, with all, or with some of them, of which it then has
/// the shape. object names the dataset in messages; file_bytes is the size of its file. They take memory only
/// after comparing what the dataset declares with what is stored. Throw InvalidCase.
Tensor read_header(hid_t dataset, std::uint64_t file_bytes, const std::string& object);
Tensor read_tensor(hid_t dataset, std::uint64_t file_bytes, const std::string& object);
Tensor read_part(hid_t dataset, const Selection& part, std::uint64_t file_bytes, const std::string& object);

/// The names of an object's attributes, in the order of the names.
std::vector<std::string> attribute_names(hid_t owner, const std::string& object);

/// A scalar attribute (or an array of one element) of text, number or boolean. object names the attribute in
/// messages. Text is UTF-8; only with may_have_lines may it hold line breaks and tabs. Throws InvalidCase.
Attribute read_attribute(hid_t owner, const std::string& name, const std::string& object,
                         bool may_have_lines = false);

}  // namespace attest
