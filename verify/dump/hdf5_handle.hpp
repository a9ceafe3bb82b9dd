// Living with the HDF5 library: one owner for every kind of identifier, what it says of a failed call, what
// to do about its crashes, and how messages are made. In verify, only this folder includes it.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "core/invalid_case.hpp"

namespace attest {

/// Owns an HDF5 identifier of any kind, or none.
class Handle {
 public:
  explicit Handle(hid_t id) : id_(id) {}
  ~Handle() {
    if (id_ >= 0) H5Idec_ref(id_);  // closes whatever it is
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }

  bool is_valid() const { return id_ >= 0; }
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
};

/// For messages: in quotation marks and on one line, or "that is not UTF-8".
std::string in_quotes(std::string_view text);

/// The innermost message of the last call that failed. Ask before the next call, which forgets it.
std::string library_message();

/// Runs `work` in a copy of this process, which prints nothing and whose changes are lost; exceptions count
/// as an end like any other. Empty if it came to an end, else what happened: "crashed (Segmentation fault)".
/// Empty too where no process can be started: then nothing was tried. bytes: of the file; a large one may
/// take longer.
std::string failure_of_trial(std::uint64_t bytes, const std::function<void()>& work);

/// object: "dump.h5: /case/in/k".
[[noreturn]] inline void reject(const std::string& object, const std::string& found,
                                const std::string& expected) {
  throw InvalidCase(object + " " + found + "; " + expected);
}

}  // namespace attest
