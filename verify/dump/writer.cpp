// Writes generated inputs: rows in pieces, bits as the element type has them.
#include "verify/dump/writer.hpp"

#include <algorithm>
#include <cmath>

#include "verify/atomic_file.hpp"
#include "verify/dump/hdf5_handle.hpp"
#include "verify/inputs/described.hpp"

namespace attest {
namespace {

constexpr Index piece_elements = Index{1} << 20;  // held at a time

hid_t checked(hid_t id) {
  if (id < 0) throw WriteError("cannot write inputs: " + library_message());
  return id;
}
void check(herr_t status) {
  checked(status);
}

/// As h5py writes booleans.
Handle boolean_type() {
  Handle type(checked(H5Tenum_create(H5T_STD_I8LE)));
  const signed char values[] = {0, 1};
  check(H5Tenum_insert(type, "FALSE", &values[0]));
  check(H5Tenum_insert(type, "TRUE", &values[1]));
  return type;
}

/// The type in the file: little-endian. Formats that HDF5 lacks are stored as their bits.
Handle file_type(const GeneratedTensor& tensor) {
  if (tensor.type_name == "bool") return boolean_type();
  if (!tensor.dtype) return Handle(checked(H5Tcopy(H5T_STD_I32LE)));
  switch (*tensor.dtype) {
    case DType::float64:
      return Handle(checked(H5Tcopy(H5T_IEEE_F64LE)));
    case DType::float32:
      return Handle(checked(H5Tcopy(H5T_IEEE_F32LE)));
    case DType::float16: {
      Handle type(checked(H5Tcopy(H5T_IEEE_F32LE)));
      check(H5Tset_fields(type, 15, 10, 5, 0, 10));
      check(static_cast<herr_t>(H5Tset_size(type, 2)));
      check(H5Tset_ebias(type, 15));
      return type;
    }
    case DType::bfloat16:
      return Handle(checked(H5Tcopy(H5T_STD_U16LE)));
    case DType::float8_e4m3fn:
    case DType::float8_e5m2:
      return Handle(checked(H5Tcopy(H5T_STD_U8LE)));
  }
  throw WriteError("cannot write inputs: unknown element type");
}

void write_attribute(hid_t owner, const std::string& name, const Attribute& value) {
  const Handle space(checked(H5Screate(H5S_SCALAR)));
  const auto write = [&](hid_t type, const void* data) {
    const Handle attribute(checked(H5Acreate2(owner, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT)));
    check(H5Awrite(attribute, type, data));
  };
  if (const auto* text = std::get_if<std::string>(&value)) {
    const Handle type(checked(H5Tcopy(H5T_C_S1)));
    check(H5Tset_size(type, H5T_VARIABLE));
    check(H5Tset_cset(type, H5T_CSET_UTF8));
    const char* data = text->c_str();
    write(type, &data);
  } else if (const auto* number = std::get_if<double>(&value)) {
    write(H5T_NATIVE_DOUBLE, number);
  } else if (const auto* whole = std::get_if<std::int64_t>(&value)) {
    write(H5T_NATIVE_INT64, whole);
  } else {
    const signed char flag = std::get<bool>(value) ? 1 : 0;
    write(boolean_type(), &flag);
  }
}

void append_bytes(std::vector<unsigned char>& to, std::uint64_t bits, std::size_t bytes) {
  for (std::size_t n = 0; n < bytes; ++n) to.push_back(static_cast<unsigned char>(bits >> (8 * n)));
}

void write_tensor(hid_t group, const std::string& name, const GeneratedTensor& tensor) {
  const std::vector<hsize_t> shape(tensor.shape.begin(), tensor.shape.end());
  const Handle type = file_type(tensor);
  const Handle space(checked(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr)));
  const Handle creation(checked(H5Pcreate(H5P_DATASET_CREATE)));
  check(H5Pset_obj_track_times(creation, false));
  const Handle dataset(
      checked(H5Dcreate2(group, name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT)));
  if (tensor.dtype && format_of(*tensor.dtype).bits <= 16 && *tensor.dtype != DType::float16)
    write_attribute(dataset, "dtype", tensor.type_name);

  // Pieces are runs of lines within the last axis but one, so that each is a box of the tensor.
  const std::size_t rank = shape.size(), bytes = H5Tget_size(type);
  const Index width = tensor.shape.back(), lines = tensor.rows() / tensor.parts,
              run = rank > 1 ? tensor.shape[rank - 2] : 1;
  std::vector<double> values;
  std::vector<unsigned char> raw;
  for (Index first = 0; first < lines;) {
    const Index count = std::min(std::max<Index>(1, piece_elements / width), run - first % run);
    values.resize(static_cast<std::size_t>(count * width));
    tensor.stored_rows(first * tensor.parts, values);
    raw.clear();
    for (const double x : values) {
      append_bytes(raw, tensor.dtype ? encode(x, *tensor.dtype) : static_cast<std::uint64_t>(std::llround(x)),
                   bytes);
    }
    std::vector<hsize_t> start(rank, 0), box(rank, 1);
    box[rank - 1] = static_cast<hsize_t>(width);
    if (rank > 1) box[rank - 2] = static_cast<hsize_t>(count);
    Index rest = first;
    for (std::size_t axis = rank - 1; axis-- > 0; rest /= tensor.shape[axis])
      start[axis] = static_cast<hsize_t>(rest % tensor.shape[axis]);
    check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, box.data(), nullptr));
    const Handle memory(checked(H5Screate_simple(static_cast<int>(rank), box.data(), nullptr)));
    check(H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, raw.data()));
    first += count;
  }
}

void write_attributes(hid_t owner, const std::string& name, const Attributes& attributes) {
  if (attributes.empty()) return;
  const Handle group(checked(H5Gcreate2(owner, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)));
  for (const auto& [key, value] : attributes) write_attribute(group, key, value);
}

void write_case(hid_t file, const GeneratedCase& c, InputForm form) {
  const Handle group(checked(H5Gcreate2(file, c.name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)));
  write_attribute(group, "op", c.op);
  write_attributes(group, "spec", c.request.spec);
  write_attributes(group, "contract", c.request.contract);
  write_attributes(group, "about", c.about);
  if (form == InputForm::described) return write_attributes(group, "recipe", recipe_of(c.request));
  const Handle in(checked(H5Gcreate2(group, "in", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)));
  for (const auto& [name, tensor] : c.in) write_tensor(in, name, tensor);
}

}  // namespace

void write_cases(const std::string& path, bool may_replace, std::span<const GeneratedCase> cases,
                 InputForm form) {
  write_whole(path, may_replace, [&](const std::string& temporary) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // failures are reported by exceptions alone
    const hid_t id = H5Fcreate(temporary.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT);
    if (id < 0) throw WriteError("cannot write " + path + ": " + library_message());
    const Handle file(id);
    write_attribute(file, "attest_format", std::int64_t{1});
    for (const GeneratedCase& c : cases) write_case(file, c, form);
    check(H5Fflush(file, H5F_SCOPE_GLOBAL));  // a full disk may show only here
  });
}

}  // namespace attest
