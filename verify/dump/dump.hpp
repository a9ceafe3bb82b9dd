// Reads dumps: HDF5 files in the format of docs/dump_format.md. Never writes to them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "verify/case.hpp"

namespace attest {

/// An open dump. Every member throws InvalidCase, whose text is one line that names the file and the object,
/// if the file is not what docs/dump_format.md describes. Memory is only taken for data that the file really
/// holds.
/// Opening first tries the HDF5 library in a copy of the process, as damaged files may crash it. Several
/// threads may read one dump, one of them at a time from the file.
class Dump {
 public:
  enum class Contents { headers, everything };

  /// Which part of the tensor in/name or out/name to read; nothing to leave the tensor out.
  using Parts = std::function<std::optional<Selection>(const std::string& path)>;

  explicit Dump(const std::string& path);
  ~Dump();
  Dump(const Dump&) = delete;
  Dump& operator=(const Dump&) = delete;

  /// Names of the cases, sorted; {"/"} if the root is the case.
  const std::vector<std::string>& case_names() const;

  /// Inputs that the file describes instead of holding them are made here.
  Case read(const std::string& case_name, Contents contents = Contents::everything) const;
  /// The case with parts of its tensors: memory for no more than these.
  Case read(const std::string& case_name, const Parts& parts) const;

 private:
  struct File;
  std::unique_ptr<File> file_;
};

}  // namespace attest
