// Finds the cases of a dump and reads them: files, groups and links.
#include "verify/dump/dump.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <system_error>

#include "verify/dump/dataset.hpp"
#include "verify/dump/hdf5_handle.hpp"
#include "verify/inputs/described.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr std::int64_t format_version = 1;
constexpr std::size_t max_soft_links = 16;  // that one name may lead through: HDF5's own default

std::uint64_t checked_file_size(const std::string& path) {
  const std::string object = path + ":", expected = "a dump is an HDF5 file";
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found)
    reject(object, "there is no such file", expected);
  if (error) reject(object, "cannot be looked up: " + error.message(), expected);
  if (std::filesystem::is_directory(status)) reject(object, "is a directory", expected);
  if (!std::filesystem::is_regular_file(status)) reject(object, "is not a regular file", expected);
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error || !std::ifstream(path, std::ios::binary))
    reject(object, "cannot be opened for reading", expected);
  if (size == 0) reject(object, "is empty", expected);
  return size;
}

Handle open_file(const std::string& path, std::uint64_t size) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // failures are reported by exceptions alone
  if (H5Fis_hdf5(path.c_str()) <= 0) {
    reject(path + ":", "of " + std::to_string(size) + " bytes is not HDF5 or lacks its beginning",
           "a dump is an HDF5 file");
  }
  const Handle access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_file_locking(access, true, true);  // where the file system has no locks, read without
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access));
  if (!file.is_valid()) {
    const std::string message = library_message();
    if (message.starts_with("truncated file")) {
      reject(path + ":", "is truncated to " + std::to_string(size) + " bytes (" + message + ")",
             "a complete file is expected");
    }
    reject(path + ":", "cannot be opened: " + message, "an undamaged HDF5 file is expected");
  }
  return file;
}

/// Names end up in messages and in reports.
bool is_plain(const std::string& name) {
  return is_utf8(name) && printable(name) == name;
}

/// The names in a group, in their order, all of them plain.
std::vector<std::string> link_names(hid_t group, const std::string& object) {
  std::vector<std::string> names;
  const auto take = [](hid_t, const char* name, const H5L_info_t*, void* result) noexcept -> herr_t {
    static_cast<std::vector<std::string>*>(result)->emplace_back(name);
    return 0;
  };
  if (H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, take, &names) < 0) {
    reject(object, "cannot be listed: " + library_message(), "an undamaged file is expected");
  }
  for (const std::string& name : names) {
    if (is_plain(name)) continue;
    reject(object, "holds a name " + in_quotes(name), "UTF-8 without control characters is expected");
  }
  return names;
}

/// The object behind a link, whose path may lead through soft links but not out of the file.
Handle open_link(hid_t group, const std::string& name, const std::string& object) {
  const std::string expected = "accepted: links to objects in the file";
  H5L_info_t info{};
  if (H5Lget_info(group, name.c_str(), &info, H5P_DEFAULT) < 0) {
    reject(object, "is damaged: " + library_message(), "an undamaged file is expected");
  }
  if (info.type == H5L_TYPE_EXTERNAL)
    reject(object, "is an external link, to data outside the file", expected);
  if (info.type != H5L_TYPE_HARD && info.type != H5L_TYPE_SOFT)
    reject(object, "is a user-defined link", expected);

  const Handle access(H5Pcreate(H5P_LINK_ACCESS));
  H5Pset_nlinks(access, max_soft_links);
  const auto refuse = [](const char*, const char*, const char*, const char*, unsigned*, hid_t,
                         void*) -> herr_t { return -1; };
  H5Pset_elink_cb(access, refuse, nullptr);
  Handle target(H5Oopen(group, name.c_str(), access));
  if (!target.is_valid()) {
    const std::string message = library_message();
    if (info.type == H5L_TYPE_HARD)
      reject(object, "cannot be opened: " + message, "an undamaged file is expected");
    reject(object, "is a soft link that leads to no object: " + message, expected);
  }
  return target;
}

Handle open_group(hid_t parent, const std::string& name, const std::string& object) {
  Handle child = open_link(parent, name, object);
  if (H5Iget_type(child) != H5I_GROUP) {
    reject(object,
           std::string("is ") + (H5Iget_type(child) == H5I_DATASET ? "a dataset" : "a named datatype"),
           "a group is expected");
  }
  return child;
}

bool has_attribute(hid_t owner, const char* name) {
  return H5Aexists(owner, name) > 0;
}

void check_attribute_names(hid_t owner, const std::vector<std::string>& accepted, const std::string& object) {
  for (const std::string& name : attribute_names(owner, object)) {
    if (std::count(accepted.begin(), accepted.end(), name) > 0) continue;
    std::string list;
    for (const std::string& known : accepted) list += (list.empty() ? "" : ", ") + known;
    reject(object, "has an attribute " + in_quotes(name), "accepted: " + (list.empty() ? "none" : list));
  }
}

void check_format(hid_t root, const std::string& path) {
  const std::string object = path + ": / attribute attest_format", expected = "accepted: 1";
  if (!has_attribute(root, "attest_format"))
    reject(object, "is missing", "it says the format's version, which is 1");
  const Attribute version = read_attribute(root, "attest_format", object);
  const auto* number = std::get_if<std::int64_t>(&version);
  if (!number) reject(object, "is not an integer", expected);
  if (*number != format_version) reject(object, "is " + std::to_string(*number), expected);
}

/// Whether the group only keeps datasets, for cases to link to.
bool is_store(hid_t group, const std::string& object) {
  const std::vector<std::string> names = link_names(group, object);
  return !names.empty() && std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    return H5Iget_type(open_link(group, name, object + "/" + name)) == H5I_DATASET;
  });
}

Attributes read_attribute_group(hid_t group, bool may_have_lines, const std::string& object) {
  for (const std::string& name : link_names(group, object)) {
    reject(object, "holds the object \"" + name + "\"", "only attributes are accepted there");
  }
  Attributes attributes;
  for (const std::string& name : attribute_names(group, object)) {
    if (!is_plain(name)) {
      reject(object, "has an attribute " + in_quotes(name), "UTF-8 without control characters is expected");
    }
    attributes[name] = read_attribute(group, name, object + " attribute " + name, may_have_lines);
  }
  return attributes;
}

/// read: the tensor of an open dataset, if it is wanted, by its path and the name of its object.
using ReadTensor = std::function<std::optional<Tensor>(hid_t, const std::string&, const std::string&)>;

std::map<std::string, Tensor> read_tensors(hid_t group, const std::string& group_name, const ReadTensor& read,
                                           const std::string& object) {
  check_attribute_names(group, {}, object);
  std::map<std::string, Tensor> tensors;
  const std::vector<std::string> names = link_names(group, object);
  for (const std::string& name : names) {
    const std::string path = object + "/" + name;
    const Handle dataset = open_link(group, name, path);
    if (H5Iget_type(dataset) != H5I_DATASET) reject(path, "is not a dataset", "a dataset is expected");
    if (std::optional<Tensor> tensor = read(dataset, group_name + "/" + name, path))
      tensors[name] = std::move(*tensor);
  }
  if (names.empty()) reject(object, "is empty", "at least one dataset is expected");
  return tensors;
}

/// The inputs that the case's recipe describes, if it has one. make: the tensor, if it is wanted, by its
/// path.
template <class Make>
Case with_described_inputs(Case c, const Make& make) {
  if (c.recipe.empty()) return c;
  for (const auto& [name, tensor] : described_inputs(c)) {
    try {
      if (std::optional<Tensor> made = make(tensor, "in/" + name)) c.in[name] = std::move(*made);
    } catch (const InvalidCase& error) {
      throw InvalidCase(c.object("in/" + name) + ": " + error.what());
    }
  }
  return c;
}

}  // namespace

struct Dump::File {
  std::string path;
  std::uint64_t bytes;
  Handle id, root;
  std::vector<std::string> cases;
  mutable std::mutex reading;  // HDF5 has no threads

  explicit File(const std::string& file_path)
      : path(file_path),
        bytes(checked_file_size(path)),
        id(open_file(path, bytes)),
        root(H5Oopen(id, "/", H5P_DEFAULT)) {
    if (!root.is_valid())
      reject(path + ": /", "cannot be opened: " + library_message(), "an undamaged file is expected");
    check_format(root, path);
    if (has_attribute(root, "op")) {
      cases = {"/"};
      return;
    }
    check_attribute_names(root, {"attest_format", "op"}, path + ": /");
    for (const std::string& name : link_names(root, path + ": /")) {
      const std::string object = path + ": /" + name;
      const Handle group = open_group(root, name, object);
      if (has_attribute(group, "op")) {
        cases.push_back(name);
      } else if (!is_store(group, object)) {
        reject(object, "has no attribute op",
               "a group is a case with op, or holds nothing but datasets to link to");
      }
    }
    if (cases.empty())
      reject(path + ": /", "holds no case", "at least one group with an attribute op is expected");
    std::sort(cases.begin(), cases.end());
  }

  Case read(const std::string& case_name, const ReadTensor& read) const;
};

Dump::Dump(const std::string& path) {
  const std::uint64_t bytes = checked_file_size(path);
  // On damaged metadata HDF5 itself may crash or loop: 1.10.8 does at sizes in the global heap, where text
  // is.
  const std::string failure = failure_of_trial(bytes, [&] {
    const auto skip_invalid = [](const auto& read) {
      try {
        read();
      } catch (const InvalidCase&) {  // will be found again
      }
    };
    skip_invalid([&] {
      const File file(path);
      for (const std::string& name : file.cases)
        skip_invalid([&] {
          file.read(name, [&](hid_t dataset, const std::string&, const std::string& object) {
            return read_header(dataset, file.bytes, object);
          });
        });
    });
    H5close();  // memory that the library overwrote may show when it is released
  });
  if (!failure.empty()) {
    reject(path + ":", "is damaged: the HDF5 library " + failure, "an undamaged HDF5 file is expected");
  }
  file_ = std::make_unique<File>(path);
}

Dump::~Dump() = default;

const std::vector<std::string>& Dump::case_names() const {
  return file_->cases;
}

Case Dump::File::read(const std::string& case_name, const ReadTensor& read) const {
  const std::lock_guard one_reader(reading);
  if (std::count(cases.begin(), cases.end(), case_name) == 0) {
    std::string list;
    for (const std::string& known : cases) list += (list.empty() ? "" : ", ") + known;
    reject(path + ":", "has no case " + in_quotes(case_name), "its cases: " + list);
  }
  Case c;
  c.file = path;
  c.name = case_name;
  const bool is_root = case_name == "/";
  const std::string object = c.file + ": " + (is_root ? "/" : "/" + case_name);
  const Handle group =
      is_root ? Handle(H5Oopen(root, "/", H5P_DEFAULT)) : open_group(root, case_name, object);
  std::vector<std::string> accepted{"op"};
  if (is_root) accepted.insert(accepted.begin(), "attest_format");
  check_attribute_names(group, accepted, object);
  const Attribute op = read_attribute(group, "op", object + " attribute op");
  if (!std::holds_alternative<std::string>(op))
    reject(object + " attribute op", "is not text", "an operation's name is expected");
  c.op = std::get<std::string>(op);

  bool has_in = false, has_recipe = false;
  for (const std::string& name : link_names(group, object)) {
    const std::string part = c.object(name);
    Attributes* attributes = name == "spec"       ? &c.spec
                             : name == "contract" ? &c.contract
                             : name == "about"    ? &c.about
                             : name == "recipe"   ? &c.recipe
                                                  : nullptr;
    std::map<std::string, Tensor>* tensors = name == "in" ? &c.in : name == "out" ? &c.out : nullptr;
    if (!attributes && !tensors)
      reject(part, "is not known", "accepted: spec, contract, recipe, in, out, about");
    const Handle child = open_group(group, name, part);
    if (attributes) *attributes = read_attribute_group(child, name == "about", part);
    if (tensors) *tensors = read_tensors(child, name, read, part);
    has_in |= name == "in";
    has_recipe |= name == "recipe";
  }
  if (has_in && has_recipe)
    reject(c.object("recipe"), "is given beside in", "a case either holds its inputs or describes them");
  if (has_recipe && c.recipe.empty()) reject(c.object("recipe"), "is empty", "attributes are expected there");
  if (!has_in && !has_recipe)
    reject(c.object("in"), "is missing", "the datasets that the kernel read are expected there");
  return c;
}

Case Dump::read(const std::string& case_name, Contents contents) const {
  const bool all = contents == Contents::everything;
  const auto read = [&](hid_t dataset, const std::string&, const std::string& object) {
    return all ? read_tensor(dataset, file_->bytes, object) : read_header(dataset, file_->bytes, object);
  };
  return with_described_inputs(
      file_->read(case_name, read),
      [&](const GeneratedTensor& tensor, const std::string&) -> std::optional<Tensor> {
        return all ? tensor.whole() : tensor.header();
      });
}

Case Dump::read(const std::string& case_name, const Parts& parts) const {
  const auto read = [&](hid_t dataset, const std::string& path,
                        const std::string& object) -> std::optional<Tensor> {
    const std::optional<Selection> part = parts(path);
    if (!part) return std::nullopt;
    return read_part(dataset, *part, file_->bytes, object);
  };
  return with_described_inputs(
      file_->read(case_name, read),
      [&](const GeneratedTensor& tensor, const std::string& path) -> std::optional<Tensor> {
        const std::optional<Selection> part = parts(path);
        if (!part) return std::nullopt;
        return tensor.part(*part);
      });
}

}  // namespace attest
