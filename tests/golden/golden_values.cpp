// Reads what a golden file holds beside its dumps.
#include "tests/golden/golden_values.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <stdexcept>

#include "verify/dump/dump.hpp"
#include "verify/dump/hdf5_handle.hpp"

namespace attest::test {
namespace {

std::vector<double> values_of(hid_t file, const std::string& path, DType dtype) {
  const Handle data(H5Dopen2(file, path.c_str(), H5P_DEFAULT));
  if (!data.is_valid()) throw std::runtime_error("there is no " + path);
  const Handle space(H5Dget_space(data));
  const auto count = static_cast<std::size_t>(H5Sget_simple_extent_npoints(space));
  std::vector<double> values(count);
  if (dtype == DType::bfloat16 || format_of(dtype).bits == 8) {
    std::vector<std::uint64_t> bits(count);
    H5Dread(data, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, bits.data());
    for (std::size_t n = 0; n < count; ++n) values[n] = decode(bits[n], dtype);
  } else {
    H5Dread(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  }
  return values;
}

Handle opened(const Case& c) {
  Handle file(H5Fopen(c.file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  if (!file.is_valid()) throw std::runtime_error("cannot open " + c.file);
  return file;
}

std::vector<std::string> names_in(hid_t file, const std::string& group) {
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5L_info_t*, void* all) -> herr_t {
    static_cast<std::vector<std::string>*>(all)->emplace_back(name);
    return 0;
  };
  H5Literate_by_name(file, group.c_str(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names, H5P_DEFAULT);
  return names;
}

/// The name of a dataset of this output: "o", or "o[::17]".
std::string dataset_of(hid_t file, const Case& c, const std::string& output) {
  const std::string group = c.name + ".float64";
  for (const std::string& name : names_in(file, group)) {
    const bool is_sampled = name.starts_with(output + "[::") && name.ends_with("]");
    if (name == output || is_sampled) return group + "/" + name;
  }
  throw std::runtime_error(c.object("out/" + output) + " has no float64 values");
}

}  // namespace

const std::vector<Case>& golden_cases() {
  static const std::vector<Case> cases = [] {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(ATTEST_GOLDEN_FOLDER)) {
      if (entry.path().extension() == ".h5") files.push_back(entry.path().string());
    }
    std::ranges::sort(files);
    std::vector<Case> all;
    for (const std::string& path : files) {
      const Dump dump(path);
      for (const std::string& name : dump.case_names()) all.push_back(dump.read(name));
    }
    return all;
  }();
  return cases;
}

GoldenValues golden_values(const Case& c, const std::string& output) {
  const Handle file = opened(c);
  const std::string path = dataset_of(file, c, output);
  const std::size_t colons = path.find("[::");
  const Index step = colons == std::string::npos ? 1 : std::stol(path.substr(colons + 3));
  return {step, values_of(file, path, DType::float64)};
}

bool has_values(const Case& c, const std::string& output) {
  const std::string path = c.name + ".float64/" + output;
  return H5Lexists(opened(c), path.c_str(), H5P_DEFAULT) > 0;
}

std::vector<double> all_golden_values(const Case& c, const std::string& output) {
  GoldenValues golden = golden_values(c, output);
  if (golden.step != 1) throw std::runtime_error(c.object("out/" + output) + " is sampled");
  return std::move(golden.values);
}

std::vector<double> golden_exceptions(const Case& c, const std::string& output, DType dtype) {
  const Handle file = opened(c);
  const std::string path = dataset_of(file, c, output) + "." + std::string(format_of(dtype).name);
  if (H5Lexists(file, path.c_str(), H5P_DEFAULT) <= 0) return {};
  return values_of(file, path, dtype);
}

double golden_error(double golden) {
  return std::isfinite(golden) ? ulp(golden, DType::float64) / 2 : 0;
}

}  // namespace attest::test
