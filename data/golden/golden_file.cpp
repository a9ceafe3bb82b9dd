// Writes goldens to HDF5 files whose bytes depend on nothing but the values.
#include "data/golden/golden_file.hpp"

#include <hdf5.h>

#include <cmath>
#include <stdexcept>

#include "core/dtype.hpp"
#include "verify/dump/hdf5_handle.hpp"

namespace attest::golden {
namespace {

hid_t checked(hid_t id, const std::string& what) {
  if (id < 0) throw std::runtime_error("HDF5 failed to make " + what + ": " + library_message());
  return id;
}

/// Little-endian bytes of each value in a type of `bytes` bytes.
std::vector<char> packed(const std::vector<std::uint64_t>& values, int bytes) {
  std::vector<char> result;
  for (const std::uint64_t value : values) {
    for (int n = 0; n < bytes; ++n) result.push_back(static_cast<char>(value >> (8 * n) & 0xff));
  }
  return result;
}

Handle text_type() {
  Handle type(checked(H5Tcopy(H5T_C_S1), "a type"));
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

Handle boolean_type() {
  Handle type(checked(H5Tenum_create(H5T_STD_I8LE), "a type"));
  const std::int8_t no = 0, yes = 1;
  H5Tenum_insert(type, "FALSE", &no);
  H5Tenum_insert(type, "TRUE", &yes);
  return type;
}

void write_attribute(hid_t object, const std::string& name, hid_t type, const void* value) {
  const Handle space(checked(H5Screate(H5S_SCALAR), "a space"));
  const Handle attribute(
      checked(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), name));
  if (H5Awrite(attribute, type, value) < 0) throw std::runtime_error("HDF5 failed to write " + name);
}

void write_attribute(hid_t object, const std::string& name, const Attribute& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    const char* characters = text->c_str();
    write_attribute(object, name, text_type(), &characters);
  } else if (const auto* number = std::get_if<double>(&value)) {
    write_attribute(object, name, H5T_IEEE_F64LE, number);
  } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    write_attribute(object, name, H5T_STD_I64LE, integer);
  } else {
    const std::int8_t flag = std::get<bool>(value);
    write_attribute(object, name, boolean_type(), &flag);
  }
}

class File {
 public:
  explicit File(const std::string& path) : file_(H5I_INVALID_HID), plain_(H5I_INVALID_HID) {
    const Handle access(checked(H5Pcreate(H5P_FILE_ACCESS), "a property list"));
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    const Handle root(checked(H5Pcreate(H5P_FILE_CREATE), "a property list"));
    H5Pset_obj_track_times(root, false);
    file_ = Handle(checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, root, access), path));
    plain_ = Handle(checked(H5Pcreate(H5P_DATASET_CREATE), "a property list"));
    H5Pset_obj_track_times(plain_, false);
    write_attribute(file_, "attest_format", std::int64_t{1});
  }

  Handle group(hid_t parent, const std::string& name) const {
    const Handle properties(checked(H5Pcreate(H5P_GROUP_CREATE), "a property list"));
    H5Pset_obj_track_times(properties, false);
    return Handle(checked(H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT), name));
  }
  Handle group(const std::string& name) const { return group(file_, name); }

  void attributes(hid_t parent, const std::string& name, const Attributes& values) const {
    const Handle g = group(parent, name);
    for (const auto& [key, value] : values) write_attribute(g, key, value);
  }

  /// path: from the root.
  void tensor(const std::string& path, const Tensor& tensor) {
    std::vector<std::uint64_t> bits;
    int bytes = 1;
    hid_t type = H5T_STD_U8LE;
    std::string stored_as_bits;
    if (tensor.dtype) {
      bytes = format_of(*tensor.dtype).bits / 8;
      for (const double value : tensor.values) bits.push_back(encode(value, *tensor.dtype));
      switch (*tensor.dtype) {
        case DType::float64:
          type = H5T_IEEE_F64LE;
          break;
        case DType::float32:
          type = H5T_IEEE_F32LE;
          break;
        case DType::float16:
          type = half_;
          break;
        case DType::bfloat16:
          type = H5T_STD_U16LE;
          stored_as_bits = tensor.type_name;
          break;
        default:
          stored_as_bits = tensor.type_name;
      }
    } else {
      if (tensor.type_name != "bool") bytes = 8, type = H5T_STD_I64LE;
      for (const double value : tensor.values) {
        bits.push_back(static_cast<std::uint64_t>(static_cast<std::int64_t>(value)));
      }
    }
    const std::vector<char> content = packed(bits, bytes);
    std::string key = tensor.type_name + "|";
    for (const Index extent : tensor.shape) key += std::to_string(extent) + ",";
    key.append(content.data(), content.size());
    const auto [known, is_new] = written_.try_emplace(key, path);
    if (!is_new) {
      if (H5Lcreate_hard(file_, known->second.c_str(), file_, path.c_str(), H5P_DEFAULT, H5P_DEFAULT) < 0) {
        throw std::runtime_error("HDF5 failed to link " + path);
      }
      return;
    }
    const std::vector<hsize_t> extents(tensor.shape.begin(), tensor.shape.end());
    const Handle space(
        checked(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), path));
    const Handle data(
        checked(H5Dcreate2(file_, path.c_str(), type, space, H5P_DEFAULT, plain_, H5P_DEFAULT), path));
    if (H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, content.data()) < 0) {
      throw std::runtime_error("HDF5 failed to write " + path);
    }
    if (!stored_as_bits.empty()) write_attribute(data, "dtype", stored_as_bits);
  }

 private:
  static Handle half() {
    Handle type(checked(H5Tcopy(H5T_IEEE_F32LE), "a type"));
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
  }

  Handle file_, plain_, half_ = half();
  std::map<std::string, std::string> written_;  // what a dataset holds, and its path
};

Tensor tensor_of(DType dtype, std::vector<Index> shape, std::vector<double> values) {
  return {std::string(format_of(dtype).name), dtype, std::move(shape), std::move(values)};
}

std::vector<double> every(const std::vector<double>& values, Index step) {
  std::vector<double> some;
  for (Index n = 0; n < static_cast<Index>(values.size()); n += step) some.push_back(values[n]);
  return some;
}

bool is_same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

void write_values(File& file, const std::string& group, const std::string& name, const Output& output,
                  Index step) {
  const std::vector<double>& doubles = output.nearest[static_cast<std::size_t>(DType::float64)];
  const std::string at = group + "/" + name + (step == 1 ? "" : "[::" + std::to_string(step) + "]");
  const auto store = [&](const std::string& path, DType dtype) {
    std::vector<double> values = every(output.nearest[static_cast<std::size_t>(dtype)], step);
    std::vector<Index> shape = output.shape;
    if (step != 1) shape = {static_cast<Index>(values.size())};
    file.tensor(path, tensor_of(dtype, std::move(shape), std::move(values)));
  };
  store(at, DType::float64);
  for (const Format& f : all_formats()) {
    const std::vector<double>& nearest = output.nearest[static_cast<std::size_t>(f.dtype)];
    bool is_rounded_double = true;
    for (std::size_t n = 0; n < nearest.size(); n += static_cast<std::size_t>(step)) {
      is_rounded_double = is_rounded_double && is_same(nearest[n], round_to(doubles[n], f.dtype));
    }
    if (!is_rounded_double) store(at + "." + std::string(f.name), f.dtype);
  }
}

}  // namespace

void write_goldens(const std::string& path, const GoldenFile& golden) {
  File file(path);
  for (GoldenCase& c : golden.cases(golden.seed)) {
    const Goldens goldens(c.dump);
    const std::string name = c.dump.name;
    const Handle group = file.group(name);
    write_attribute(group, "op", c.dump.op);
    file.attributes(group, "spec", c.dump.spec);
    file.attributes(group, "contract", c.dump.contract);
    file.attributes(group, "about", c.dump.about);
    const Handle in = file.group(group, "in"), out = file.group(group, "out"),
                 values = file.group(name + ".float64");
    for (const auto& [input, tensor] : c.dump.in) file.tensor(name + "/in/" + input, tensor);
    for (const auto& [output, result] : goldens.outputs()) {
      if (!c.unwritten.contains(output)) {
        const DType dtype = c.dump.out.at(output).dtype.value();
        file.tensor(name + "/out/" + output,
                    tensor_of(dtype, result.shape, result.nearest[static_cast<std::size_t>(dtype)]));
      }
      write_values(file, name + ".float64", output, result, c.step);
    }
  }
}

}  // namespace attest::golden
