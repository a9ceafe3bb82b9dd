// Datasets and attributes. Every size is checked against what the file holds before memory is taken for it.
#include "verify/dump/dataset.hpp"

#include <algorithm>
#include <array>
#include <new>
#include <set>
#include <span>
#include <tuple>
#include <utility>

#include "verify/dump/types.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr int max_rank = 8;  // one more than any operation's tensors have, with room for broadcast axes

/// An attribute's largest size: what HDF5 itself allows in an object header.
constexpr std::size_t max_attribute_bytes = 65536;

/// One byte of a deflate stream stands for at most 1032 bytes ("Maximum Compression Factor" in zlib's
/// Technical Details, zlib.net/zlib_tech.html). The library's own other filters reach less, except on
/// constant data.
constexpr std::uint64_t max_expansion = 1032;
constexpr std::uint64_t chunk_overhead = 64;  // more than any filter's header and checksum

std::string shown(const std::vector<hsize_t>& shape) {
  std::string text = "[";
  for (const hsize_t extent : shape) text += (text.size() == 1 ? "" : ", ") + std::to_string(extent);
  return text + "]";
}

/// Overflow saturates: the result is then larger than any file.
std::uint64_t product(std::uint64_t a, std::uint64_t b) {
  std::uint64_t result = 0;
  return __builtin_mul_overflow(a, b, &result) ? ~std::uint64_t{0} : result;
}

std::vector<hsize_t> shape_of(hid_t dataset, const std::string& object) {
  const Handle space(H5Dget_space(dataset));
  if (!space.is_valid())
    reject(object, "has no readable shape: " + library_message(), "an HDF5 dataset is expected");
  const int rank = H5Sget_simple_extent_type(space) == H5S_SIMPLE ? H5Sget_simple_extent_ndims(space) : 0;
  if (rank < 1) reject(object, "is a scalar or has no elements", "1 to 8 axes are expected");
  std::vector<hsize_t> shape(static_cast<std::size_t>(rank));
  H5Sget_simple_extent_dims(space, shape.data(), nullptr);
  if (rank > max_rank) {
    reject(object, "has shape " + shown(shape) + " of " + std::to_string(rank) + " axes",
           "1 to 8 axes are expected");
  }
  if (std::count(shape.begin(), shape.end(), hsize_t{0}) > 0) {
    reject(object, "has shape " + shown(shape), "every extent must be at least 1");
  }
  return shape;
}

/// Whether there are any filters, all of which can be undone.
bool check_filters(hid_t creation, const std::string& object) {
  const int count = H5Pget_nfilters(creation);
  std::set<H5Z_filter_t> seen;
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0, config = 0;
    std::size_t parameters = 0;
    std::array<char, 64> name{};
    const H5Z_filter_t id = H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &parameters, nullptr,
                                           name.size() - 1, name.data(), &config);
    const std::string label =
        "filter " + std::to_string(id) + (name[0] != '\0' ? " " + in_quotes(name.data()) : std::string());
    const bool is_available = id >= 0 && H5Zfilter_avail(id) > 0 && H5Zget_filter_info(id, &config) >= 0 &&
                              (config & H5Z_FILTER_CONFIG_DECODE_ENABLED) != 0;
    if (!is_available) {
      reject(object, "needs the HDF5 " + label + ", which is not installed",
             "gzip and shuffle are always accepted");
    }
    // Applied twice, a compression hides max_expansion squared.
    if (!seen.insert(id).second) reject(object, "passes through " + label + " twice", "once is accepted");
  }
  return count > 0;
}

/// Throws unless the chunks are all there and can hold `declared` bytes.
void check_chunks(hid_t dataset, hid_t creation, const std::vector<hsize_t>& shape,
                  std::uint64_t element_bytes, std::uint64_t stored, const std::string& object) {
  std::vector<hsize_t> chunk(shape.size());
  const int rank = H5Pget_chunk(creation, static_cast<int>(chunk.size()), chunk.data());
  const bool is_whole =
      rank == static_cast<int>(shape.size()) && std::count(chunk.begin(), chunk.end(), 0u) == 0;
  if (!is_whole) reject(object, "has damaged chunks", "chunks of the dataset's rank are expected");
  std::uint64_t expected = 1, bytes = element_bytes;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    expected = product(expected, (shape[i] - 1) / chunk[i] + 1);
    bytes = product(bytes, chunk[i]);
  }
  bytes = product(bytes, expected);
  const Handle space(H5Dget_space(dataset));
  hsize_t present = 0;
  if (H5Dget_num_chunks(dataset, space, &present) < 0) {
    reject(object, "has no readable chunks: " + library_message(), "an undamaged file is expected");
  }
  if (present < expected) {
    reject(object,
           "of shape " + shown(shape) + " was not written in full: " + std::to_string(present) + " of " +
               std::to_string(expected) + " chunks are in the file",
           "every element must be written");
  }
  const bool has_filters = check_filters(creation, object);
  if (bytes > (has_filters ? product(stored, max_expansion) : stored)) {
    reject(object,
           "of shape " + shown(shape) + " declares " + std::to_string(bytes) + " bytes and stores " +
               std::to_string(stored),
           has_filters ? "at most 1032 times the stored bytes are accepted" : "as many bytes are expected");
  }
  // Deflate adds to what it cannot shrink at most 5 bytes in 16 KiB and a few more a stream (the same page).
  // A chunk far larger than declared would be unpacked whole.
  if (stored / 2 > bytes + product(expected, chunk_overhead)) {
    reject(object,
           "of shape " + shown(shape) + " declares " + std::to_string(bytes) + " bytes and stores " +
               std::to_string(stored),
           "at most twice as many are accepted");
  }
}

/// Throws unless the file holds as many bytes as the dataset declares; returns that number.
std::uint64_t check_storage(hid_t dataset, const std::vector<hsize_t>& shape, std::uint64_t element_bytes,
                            std::uint64_t file_bytes, const std::string& object) {
  const Handle creation(H5Dget_create_plist(dataset));
  if (!creation.is_valid())
    reject(object, "is damaged: " + library_message(), "an undamaged file is expected");
  const H5D_layout_t layout = H5Pget_layout(creation);
  if (layout == H5D_VIRTUAL || H5Pget_external_count(creation) != 0) {
    reject(object, "keeps its data outside the file", "data in the file itself are expected");
  }
  std::uint64_t declared = element_bytes;
  for (const hsize_t extent : shape) declared = product(declared, extent);

  const std::uint64_t stored = H5Dget_storage_size(dataset);
  if (stored > file_bytes) {
    reject(object,
           "claims " + std::to_string(stored) + " stored bytes in a file of " + std::to_string(file_bytes),
           "an undamaged file is expected");
  }
  if (layout == H5D_CHUNKED) {
    check_chunks(dataset, creation, shape, element_bytes, stored, object);
  } else if (stored < declared) {
    reject(object,
           "of shape " + shown(shape) + " declares " + std::to_string(declared) + " bytes and stores " +
               std::to_string(stored),
           "every element must be written");
  }
  if (layout == H5D_CONTIGUOUS) {
    const haddr_t start = H5Dget_offset(dataset);
    if (start == HADDR_UNDEF || start > file_bytes || declared > file_bytes - start) {
      reject(object, "reaches beyond the end of the file", "a file that is not truncated is expected");
    }
  }
  return declared;
}

ElementType type_of(hid_t dataset, const std::string& object) {
  const std::string accepted = "accepted: floats of 8, 16, 32 or 64 bits, integers of 8 to 64 bits, booleans";
  const Handle stored(H5Dget_type(dataset));
  if (!stored.is_valid()) reject(object, "has no readable element type: " + library_message(), accepted);
  const std::optional<ElementType> type = element_type(stored);
  if (!type) reject(object, "holds " + description(stored), accepted);
  for (const std::string& name : attribute_names(dataset, object)) {
    if (name != "dtype") reject(object, "has an attribute " + in_quotes(name), "accepted: dtype");
    const Attribute dtype = read_attribute(dataset, name, object + " attribute dtype");
    const auto* text = std::get_if<std::string>(&dtype);
    if (!text)
      reject(object + " attribute dtype", "is no text", "accepted: bfloat16, float8_e4m3fn, float8_e5m2");
    return reinterpreted(*type, *text, object);
  }
  return *type;
}

std::string trimmed(std::string text, H5T_str_t padding) {
  if (padding == H5T_STR_SPACEPAD) {
    text.erase(text.find_last_not_of(' ') + 1);
  } else if (padding == H5T_STR_NULLPAD) {
    text.erase(text.find_last_not_of('\0') + 1);
  } else {
    text.erase(std::min(text.find('\0'), text.size()));
  }
  return text;
}

[[noreturn]] void reject_unreadable(const std::string& object) {
  reject(object, "cannot be read: " + library_message(), "an undamaged file is expected");
}

std::string read_text(hid_t attribute, hid_t type, const std::string& object) {
  std::string text;
  if (H5Tis_variable_str(type) > 0) {
    char* data = nullptr;
    if (H5Aread(attribute, type, static_cast<void*>(&data)) < 0) reject_unreadable(object);
    if (data) text.assign(data, std::min(std::char_traits<char>::length(data), max_attribute_bytes + 1));
    H5free_memory(data);
  } else {
    const std::size_t bytes = H5Tget_size(type);
    if (bytes <= max_attribute_bytes) {
      text.resize(bytes);
      if (H5Aread(attribute, type, text.data()) < 0) reject_unreadable(object);
      return trimmed(std::move(text), H5Tget_strpad(type));
    }
    text.resize(max_attribute_bytes + 1);
  }
  if (text.size() > max_attribute_bytes)
    reject(object, "is longer than 65536 bytes", "a shorter text is expected");
  return text;
}

/// Selects what is at the given indices of every axis.
void select(hid_t space, const Selection& part) {
  // Blocks without gaps, one after another: the axes count them up like the digits of a number.
  std::vector<std::vector<std::pair<hsize_t, hsize_t>>> runs(part.size());  // start and length, per axis
  for (std::size_t axis = 0; axis < part.size(); ++axis) {
    for (const Index i : part[axis]) {
      const auto at = static_cast<hsize_t>(i);
      if (runs[axis].empty() || runs[axis].back().first + runs[axis].back().second != at)
        runs[axis].emplace_back(at, 0);
      ++runs[axis].back().second;
    }
  }
  H5S_seloper_t how = H5S_SELECT_SET;  // a single block is quicker to read than a union of one
  std::vector<std::size_t> run(part.size());
  std::vector<hsize_t> start(part.size()), length(part.size());
  for (bool is_done = false; !is_done;) {
    for (std::size_t axis = 0; axis < part.size(); ++axis)
      std::tie(start[axis], length[axis]) = runs[axis][run[axis]];
    H5Sselect_hyperslab(space, how, start.data(), nullptr, length.data(), nullptr);
    how = H5S_SELECT_OR;
    is_done = true;
    for (std::size_t axis = part.size(); is_done && axis-- > 0;) {
      run[axis] = (run[axis] + 1) % runs[axis].size();
      is_done = run[axis] == 0;
    }
  }
}

/// The selected elements, as many as the tensor has.
std::vector<double> values_of(hid_t dataset, hid_t in_memory, hid_t in_file, const Tensor& tensor,
                              const std::string& object) {
  const ElementType type = type_of(dataset, object);
  try {
    std::vector<std::byte> raw(static_cast<std::size_t>(tensor.size()) * type.bytes);
    const Handle stored(H5Dget_type(dataset));  // read as it is stored: the library converts nothing
    if (H5Dread(dataset, stored, in_memory, in_file, H5P_DEFAULT, raw.data()) < 0) reject_unreadable(object);
    return decode_elements(type, raw, object);
  } catch (const std::bad_alloc&) {
    std::vector<hsize_t> shape(tensor.shape.begin(), tensor.shape.end());
    reject(object, "of shape " + shown(shape) + " does not fit into memory", "a smaller tensor is expected");
  }
}

void check_text(const std::string& text, bool may_have_lines, const std::string& object) {
  if (!is_utf8(text)) reject(object, "is not UTF-8", "a text in UTF-8 is expected");
  for (const char c : text) {
    const bool is_control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    if (is_control && !(may_have_lines && (c == '\n' || c == '\r' || c == '\t'))) {
      reject(object, "is " + in_quotes(text.size() > 80 ? "..." : text),
             "a text without control characters is expected");
    }
  }
}

}  // namespace

Tensor read_header(hid_t dataset, std::uint64_t file_bytes, const std::string& object) {
  const ElementType type = type_of(dataset, object);
  const std::vector<hsize_t> shape = shape_of(dataset, object);
  check_storage(dataset, shape, type.bytes, file_bytes, object);
  return {type.name, type.dtype, {shape.begin(), shape.end()}, {}};
}

Tensor read_tensor(hid_t dataset, std::uint64_t file_bytes, const std::string& object) {
  Tensor tensor = read_header(dataset, file_bytes, object);
  tensor.values = values_of(dataset, H5S_ALL, H5S_ALL, tensor, object);
  return tensor;
}

Tensor read_part(hid_t dataset, const Selection& part, std::uint64_t file_bytes, const std::string& object) {
  Tensor tensor = read_header(dataset, file_bytes, object);
  const Handle in_file(H5Dget_space(dataset));
  select(in_file, part);
  for (std::size_t axis = 0; axis < part.size(); ++axis) tensor.shape[axis] = std::ssize(part[axis]);
  const auto count = static_cast<hsize_t>(tensor.size());
  const Handle in_memory(H5Screate_simple(1, &count, nullptr));
  tensor.values = values_of(dataset, in_memory, in_file, tensor, object);
  return tensor;
}

std::vector<std::string> attribute_names(hid_t owner, const std::string& object) {
  std::vector<std::string> names;
  const auto take = [](hid_t, const char* name, const H5A_info_t*, void* result) noexcept -> herr_t {
    static_cast<std::vector<std::string>*>(result)->emplace_back(name);
    return 0;
  };
  hsize_t position = 0;
  if (H5Aiterate2(owner, H5_INDEX_NAME, H5_ITER_INC, &position, take, &names) < 0) {
    reject(object, "has no readable attributes: " + library_message(), "an undamaged file is expected");
  }
  return names;
}

Attribute read_attribute(hid_t owner, const std::string& name, const std::string& object,
                         bool may_have_lines) {
  const std::string accepted = "a scalar text, number or boolean is expected";
  const Handle attribute(H5Aopen(owner, name.c_str(), H5P_DEFAULT));
  if (!attribute.is_valid()) reject_unreadable(object);
  const Handle space(H5Aget_space(attribute)), type(H5Aget_type(attribute));
  if (!space.is_valid() || !type.is_valid()) reject_unreadable(object);
  if (H5Sget_simple_extent_type(space) == H5S_NULL || H5Sget_simple_extent_npoints(space) != 1) {
    reject(object, "is an array of " + std::to_string(H5Sget_simple_extent_npoints(space)) + " elements",
           accepted);
  }
  if (H5Tget_class(type) == H5T_STRING) {
    std::string text = read_text(attribute, type, object);
    check_text(text, may_have_lines, object);
    return text;
  }
  const std::optional<ElementType> number = element_type(type);
  if (!number) reject(object, "is " + description(type), accepted);
  std::array<std::byte, 8> bytes{};
  if (H5Aread(attribute, type, bytes.data()) < 0) reject_unreadable(object);
  return decode_attribute(*number, std::span(bytes).first(number->bytes), object);
}

}  // namespace attest
